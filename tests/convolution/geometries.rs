//! Every geometry, on integers bit for bit: kernels, strides, dilations, paddings and sizes, over one to three axes.

use crate::run::OnCpu;
use foof_kernels::Triangle;
use foof_kernels::conv::{Conv, FeatureOrder};
use foof_oracle::Random;
use foof_oracle::images::{Problem, Request};
use foof_oracle::images::{axes, kinds};

const ORDERS: [FeatureOrder; 2] = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel];

/// The options that do not interact with the geometry along one axis take turns.
fn check(conv: Conv, number: usize, random: &mut Random) {
    let conv = conv.with_order(ORDERS[number % 2]);
    let conv = if (number / 2).is_multiple_of(3) { conv.with_bias() } else { conv };
    let triangle = if number.is_multiple_of(5) { Triangle::Lower } else { Triangle::Full };
    let request = Request { triangle, ..Request::default() };
    Problem::integers(conv, 1 + number % 3, random).assert_exact::<f32>(&request);
}

/// All of them, 1, 3 and 10 channels each.
#[test]
fn one_axis() {
    let mut random = Random::new(1);
    let axes = axes();
    assert!(axes.len() > 8000, "{} geometries", axes.len());
    for (number, &axis) in axes.iter().enumerate() {
        for channels in [1, 3, 10] {
            check(Conv::new(channels, 1, [axis]).expect("a geometry"), number + channels, &mut random);
        }
    }
}

/// Each axis beside another one, chosen at random.
#[test]
fn two_axes() {
    let mut random = Random::new(2);
    let axes = axes();
    let order = random.permutation(axes.len());
    for (number, pair) in order.chunks_exact(2).enumerate() {
        let channels = [1, 3, 10][number % 3];
        let conv = Conv::new(channels, 1, [axes[pair[0]], axes[pair[1]]]).expect("a geometry");
        check(conv, number / 3, &mut random);
    }
}

/// Every pair of kinds, each number of channels.
#[test]
fn two_axes_of_each_kind() {
    let mut random = Random::new(3);
    let mut number = 0;
    for (y, x) in kinds().into_iter().flat_map(|y| kinds().into_iter().map(move |x| (y, x))) {
        for channels in [1, 3, 10] {
            for _ in ORDERS {
                check(Conv::new(channels, 1, [y, x]).expect("a geometry"), number, &mut random);
                number += 1;
            }
            number += 1;
        }
    }
}

/// Every triple of kinds, a smaller choice of them.
#[test]
fn three_axes_of_each_kind() {
    let mut random = Random::new(4);
    let kinds = kinds();
    let some = [1, 2, 5, 6, 8, 10, 12].map(|kind| kinds[kind]);
    let mut number = 0;
    for z in some {
        for y in some {
            for x in some {
                let channels = [1, 3, 6][number % 3];
                check(Conv::new(channels, 1, [z, y, x]).expect("a geometry"), number / 3, &mut random);
                number += 1;
            }
        }
    }
}
