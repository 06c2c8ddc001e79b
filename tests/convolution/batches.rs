//! Batches that are cut into chunks of images, chunks of rows, blocks and many slabs: integers bit for bit.

use crate::run::OnCpu;
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_oracle::Random;
use foof_oracle::images::{Problem, Request, padded};

fn check(conv: Conv, n: usize, random: &mut Random) {
    let problem = Problem::integers(conv, n, random);
    let sums = problem.expected(foof_kernels::covariance::Sharing::Expand);
    problem.assert_exactly::<f32>(&Request::default(), &sums);
    problem.assert_exactly::<f64>(&Request::default(), &sums);
}

/// Sums of many images, some to each task.
#[test]
fn chunks_of_images() {
    let mut random = Random::new(1);
    let conv = |channels, axes: [Axis; 2]| Conv::new(channels, 1, axes).expect("a geometry");
    check(conv(16, [padded(12, 3), padded(12, 3)]), 37, &mut random);
    check(conv(16, [padded(13, 3).stride(2), padded(12, 3)]).with_order(FeatureOrder::TapsChannel), 40, &mut random);
    check(conv(30, [padded(9, 3), padded(7, 3)]), 33, &mut random);
    check(conv(60, [padded(8, 3), padded(8, 1)]), 30, &mut random);
}

/// Few large images: their rows are cut, and runs are longer than a slab.
#[test]
fn chunks_of_rows() {
    let mut random = Random::new(2);
    let conv = |channels, axes: [Axis; 2]| Conv::new(channels, 1, axes).expect("a geometry");
    for n in [1, 2, 3] {
        check(conv(3, [padded(90, 3), padded(131, 3)]), n, &mut random);
        check(conv(20, [padded(40, 3), padded(45, 3)]), n, &mut random);
    }
    check(conv(2, [padded(70, 5).stride(2), padded(300, 3)]), 2, &mut random);
    check(conv(9, [padded(33, 3).dilation(2), padded(257, 2)]).with_order(FeatureOrder::TapsChannel), 2, &mut random);
}

/// Images of which no two fit a block, with several tiles of channels, and batches of many small blocks.
#[test]
fn blocks() {
    let mut random = Random::new(3);
    let conv = |channels, axes: [Axis; 2]| Conv::new(channels, 1, axes).expect("a geometry");
    check(conv(50, [padded(41, 2), padded(40, 1)]), 5, &mut random);
    check(conv(97, [padded(20, 1), padded(21, 2)]), 7, &mut random);
    let axis = padded(6, 2);
    let three = Conv::new(12, 1, [axis, padded(9, 3), padded(10, 3)]).expect("a geometry");
    check(three, 20, &mut random);
}

/// Sums along one axis, longer than a slab and one of each length around it.
#[test]
fn slabs() {
    let mut random = Random::new(4);
    for size in [127, 128, 129, 130, 255, 256, 257, 400] {
        for channels in [1, 10, 30] {
            check(Conv::new(channels, 1, [padded(size, 3)]).expect("a geometry"), 3, &mut random);
        }
    }
    for n in [63, 64, 65, 127, 128, 129, 300] {
        check(Conv::new(30, 1, [padded(4, 3)]).expect("a geometry"), n, &mut random);
        check(Conv::new(30, 1, [Axis::new(1, 3).padding(2)]).expect("a geometry"), n, &mut random);
    }
}
