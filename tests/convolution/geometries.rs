//! Every geometry, on integers bit for bit: kernels, strides, dilations, paddings and sizes, over one to three axes.

use crate::problem::{Problem, Request};
use foof_kernels::Triangle;
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_oracle::Random;

const ORDERS: [FeatureOrder; 2] = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel];

/// Every axis of up to five taps and nine samples, strides and dilations up to 3, and paddings up to one more than the kernel.
fn axes() -> Vec<Axis> {
    let mut axes = Vec::new();
    for (kernel, size) in (1..=5).flat_map(|kernel| (1..=9).map(move |size| (kernel, size))) {
        for (stride, dilation) in (1..=3).flat_map(|stride| (1..=3).map(move |dilation| (stride, dilation))) {
            for (before, after) in (0..=kernel + 1).flat_map(|low| (0..=kernel + 1).map(move |high| (low, high))) {
                // The taps fit.
                if dilation * (kernel - 1) < size + before + after {
                    let axis = Axis::new(size, kernel).stride(stride).dilation(dilation);
                    axes.push(axis.padding_each([before, after]));
                }
            }
        }
    }
    axes
}

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

/// One axis of each kind.
fn kinds() -> Vec<Axis> {
    let axis = Axis::new;
    vec![
        axis(1, 1),                        // one sample, one tap
        axis(5, 1).stride(2),              // one tap, every other sample
        axis(4, 1).padding(2),             // outputs that see padding only
        axis(6, 3),                        // windows inside
        axis(6, 3).padding(1),             // as many outputs as samples
        axis(5, 3).padding_each([0, 4]),   // one-sided, oversize
        axis(1, 3).padding(2),             // one sample
        axis(2, 5).padding(4),             // fewer samples than taps
        axis(7, 3).stride(2).padding(1),   // phases
        axis(6, 2).stride(2),              // kernel = stride
        axis(7, 2).stride(3),              // samples that no tap reads
        axis(8, 3).dilation(3).padding(3), // gaps between taps
        axis(3, 3).dilation(3).padding(3), // taps that never see two samples at once
        axis(9, 4).stride(3).dilation(2).padding_each([1, 5]),
    ]
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
