//! The *reduce* setting, and the row and column of a bias in both settings.

use crate::run::OnCpu;
use foof_kernels::Triangle;
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::covariance::Sharing;
use foof_oracle::Random;
use foof_oracle::images::{Images, Problem, Request, padded};
use foof_oracle::layout::Layout;

/// The number of outputs is a power of two, so that their mean is exact.
#[test]
fn reduced_integers_are_exact() {
    let mut random = Random::new(1);
    let geometries = [
        (1, [padded(4, 3), padded(8, 3)]),
        (3, [padded(8, 3).stride(2), padded(4, 3)]),
        (10, [Axis::new(5, 2), Axis::new(4, 1)]),
        (50, [Axis::new(4, 2).stride(2), padded(2, 3)]),
        (4, [padded(1, 3).padding(4).dilation(3).padding_each([4, 5]), Axis::new(4, 1)]),
    ];
    for (channels, axes) in geometries {
        for (order, groups) in
            [(FeatureOrder::ChannelTaps, 1), (FeatureOrder::TapsChannel, 1), (FeatureOrder::TapsChannel, channels)]
        {
            let conv = Conv::new(channels, channels, axes).expect("a geometry").with_order(order);
            let conv = conv.with_groups(groups).expect("groups");
            assert!(conv.positions().is_power_of_two(), "{} outputs", conv.positions());
            for conv in [conv, conv.with_bias()] {
                for (number, triangle) in [Triangle::Full, Triangle::Lower].into_iter().enumerate() {
                    let images =
                        [Images::ChannelsFirst(Layout::RowMajor), Images::ChannelsLast(Layout::Scattered)][number];
                    let request = Request {
                        sharing: Sharing::Reduce,
                        triangle,
                        images,
                        output: Layout::ALL[channels % 7],
                        ..Request::default()
                    };
                    let problem = Problem::integers(conv, 1 + channels % 3, &mut random);
                    problem.assert_exact::<f32>(&request);
                    problem.assert_exact::<f64>(&Request { blend: [2.0, 0.5], ..request });
                }
            }
        }
    }
}

/// The last row: sums over the outputs of each tap, and their number; in the padding there is nothing to be summed.
#[test]
fn a_bias_sums_the_outputs() {
    let conv = Conv::new(1, 1, [Axis::new(3, 2).padding_each([1, 0])]).expect("a geometry").with_bias();
    let problem = Problem { conv, n: 2, x: vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0] };
    // Windows (0, 1), (1, 2), (2, 3) and the same times ten.
    let sum = problem.expected(Sharing::Expand).remove(0);
    assert_eq!(sum.row(2), [33.0, 66.0, 6.0]);
    problem.assert_exact::<f32>(&Request::default());
}

/// Sums of many images and outputs, some channels to each thread.
#[test]
fn biases_of_large_batches() {
    let mut random = Random::new(2);
    for (channels, order) in [(3, FeatureOrder::ChannelTaps), (40, FeatureOrder::TapsChannel)] {
        let axes = [padded(17, 3).stride(2), padded(16, 3)];
        let conv = Conv::new(channels, 1, axes).expect("a geometry").with_order(order).with_bias();
        let problem = Problem::integers(conv, 24, &mut random);
        for triangle in [Triangle::Full, Triangle::Lower] {
            problem.assert_exact::<f32>(&Request { triangle, blend: [1.0, -2.0], ..Request::default() });
        }
    }
}
