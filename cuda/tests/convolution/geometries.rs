//! Every kind of geometry, on integers bit for bit.

use crate::device::{assert_exact, plans};
use foof_kernels::Triangle;
use foof_kernels::conv::{Conv, FeatureOrder};
use foof_oracle::Random;
use foof_oracle::images::{Problem, Request};
use foof_oracle::images::{axes, kinds};

const ORDERS: [FeatureOrder; 2] = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel];

/// The options that do not interact with the geometry take turns, and so do the algorithms.
fn check(conv: Conv, number: usize, random: &mut Random) {
    let conv = conv.with_order(ORDERS[number % 2]);
    let conv = if (number / 2).is_multiple_of(3) { conv.with_bias() } else { conv };
    let triangle = if number.is_multiple_of(5) { Triangle::Lower } else { Triangle::Full };
    let request = Request { triangle, ..Request::default() };
    let problem = Problem::integers(conv, 1 + number % 3, random);
    let sums = problem.expected(request.sharing);
    let all = plans::<f32>(&conv, problem.n);
    let some = [all[0].clone(), all[1 + number % (all.len() - 1)].clone()];
    assert_exact::<f32>(&problem, &request, &some, &sums);
}

#[test]
fn one_axis() {
    let mut random = Random::new(1);
    let axes = axes();
    let order = random.permutation(axes.len());
    for (number, &axis) in order.iter().enumerate().take(120) {
        let channels = [1, 3, 10][number % 3];
        check(Conv::new(channels, 1, [axes[axis]]).expect("a geometry"), number / 3, &mut random);
    }
}

/// Every pair of kinds.
#[test]
fn two_axes_of_each_kind() {
    let mut random = Random::new(3);
    for (number, (y, x)) in kinds().into_iter().flat_map(|y| kinds().into_iter().map(move |x| (y, x))).enumerate() {
        let channels = [1, 3, 10][number % 3];
        check(Conv::new(channels, 1, [y, x]).expect("a geometry"), number / 3, &mut random);
    }
}

/// Triples of kinds.
#[test]
fn three_axes_of_each_kind() {
    let mut random = Random::new(4);
    let kinds = kinds();
    let some = [1, 2, 5, 6, 8, 10, 12].map(|kind| kinds[kind]);
    for (number, (z, y)) in some.into_iter().flat_map(|z| some.into_iter().map(move |y| (z, y))).enumerate() {
        let channels = [1, 3, 6][number % 3];
        let x = some[(number * 3 + number / 7) % 7];
        check(Conv::new(channels, 1, [z, y, x]).expect("a geometry"), number / 3, &mut random);
    }
}
