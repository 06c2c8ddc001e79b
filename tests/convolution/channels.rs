//! Every edge of a channel tile, and groups of channels: integers bit for bit.

use crate::run::OnCpu;
use foof_kernels::Triangle;
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_oracle::Random;
use foof_oracle::images::{Problem, Request, padded};

const ORDERS: [FeatureOrder; 2] = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel];

/// Over two of the widest f32 panels, with shifts and phases along one axis.
#[test]
fn every_number_of_channels_f32() {
    let mut random = Random::new(1);
    for channels in 1..=100 {
        for (number, order) in ORDERS.into_iter().enumerate() {
            let axis = if channels % 2 == number { padded(5, 3) } else { padded(6, 3).stride(2) };
            let conv = Conv::new(channels, 1, [axis]).expect("a geometry").with_order(order);
            Problem::integers(conv, 2, &mut random).assert_exact::<f32>(&Request::default());
        }
    }
}

/// Over two of the widest f64 panels.
#[test]
fn every_number_of_channels_f64() {
    let mut random = Random::new(2);
    for channels in 1..=52 {
        for order in ORDERS {
            let conv = Conv::new(channels, 1, [padded(5, 3)]).expect("a geometry").with_order(order);
            Problem::integers(conv, 2, &mut random).assert_exact::<f64>(&Request::default());
        }
    }
}

/// Around each panel's width and the number of channels up to which taps are gathered.
#[test]
fn channels_around_tile_edges_over_two_axes() {
    let mut random = Random::new(3);
    let edges = [4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 31, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97];
    for (number, channels) in edges.into_iter().enumerate() {
        for (turn, order) in ORDERS.into_iter().enumerate() {
            let triangle = if number % 2 == turn { Triangle::Full } else { Triangle::Lower };
            let request = Request { triangle, ..Request::default() };
            let conv = Conv::new(channels, 1, [padded(4, 3), padded(3, 3)]).expect("a geometry").with_order(order);
            Problem::integers(conv, 2, &mut random).assert_exact::<f32>(&request);
            if channels < 50 {
                let conv = Conv::new(channels, 1, [padded(3, 2).stride(2), Axis::new(4, 3)]).expect("a geometry");
                Problem::integers(conv.with_order(order), 3, &mut random).assert_exact::<f64>(&request);
            }
        }
    }
}

/// More rows of taps than a gather takes at once, and more taps than a panel holds.
#[test]
fn few_channels_and_large_kernels() {
    let mut random = Random::new(4);
    for channels in 1..=9 {
        for (number, (y, x)) in [(7, 7), (11, 3), (2, 9)].into_iter().enumerate() {
            let axes = [Axis::new(12, y).padding(y / 2), Axis::new(11, x).padding(x / 2)];
            let conv = Conv::new(channels, 1, axes).expect("a geometry").with_order(ORDERS[(channels + number) % 2]);
            Problem::integers(conv, 2, &mut random).assert_exact::<f32>(&Request::default());
        }
    }
}

/// Each group is a convolution of its own; from eight groups on each is one thread's.
#[test]
fn groups() {
    let mut random = Random::new(5);
    for (channels, groups) in [(2, 2), (12, 2), (12, 4), (12, 12), (7, 7), (8, 8), (9, 9), (32, 8), (33, 3), (100, 2)] {
        for (number, order) in ORDERS.into_iter().enumerate() {
            let triangle = [Triangle::Full, Triangle::Lower][(channels + number) % 2];
            let request = Request { triangle, ..Request::default() };
            let conv = Conv::new(channels, 2 * groups, [padded(5, 3), padded(4, 2)]).expect("a geometry");
            let conv = conv.with_order(order).with_groups(groups).expect("groups");
            let conv = if number == 1 { conv.with_bias() } else { conv };
            Problem::integers(conv, 3, &mut random).assert_exact::<f32>(&request);
            Problem::integers(conv, 2, &mut random).assert_exact::<f64>(&request);
        }
    }
}

/// One channel a group: every number of them over two of the widest vectors, all kinds of axes, one to three of them.
#[test]
fn depthwise_layers() {
    let mut random = Random::new(6);
    for channels in 2..=40 {
        let (kernel, turn) = (1 + channels % 5, channels % 2);
        let y = Axis::new(9, kernel).stride(1 + channels % 3).padding_each([turn, kernel]);
        let x = Axis::new(11, 1 + channels % 4).dilation(1 + channels % 2).padding(turn);
        for (number, order) in ORDERS.into_iter().enumerate() {
            let request =
                Request { triangle: [Triangle::Full, Triangle::Lower][(number + turn) % 2], ..Request::default() };
            let depthwise = |conv: Conv| conv.with_groups(channels).expect("groups").with_order(order);
            let two = Conv::new(channels, 2 * channels, [y, x]).expect("a geometry").with_bias();
            Problem::integers(depthwise(two), 3, &mut random).assert_exact::<f32>(&request);
            Problem::integers(depthwise(two), 2, &mut random).assert_exact::<f64>(&request);
            let three = Conv::new(channels, channels, [padded(3, 2), y, x]).expect("a geometry");
            Problem::integers(depthwise(three), 1, &mut random).assert_exact::<f32>(&request);
        }
    }
}

/// Large enough for several threads, and for runs longer than a slab.
#[test]
fn large_depthwise_layers() {
    let mut random = Random::new(7);
    for (channels, n, [y, x]) in [(24, 6, [28, 28]), (40, 2, [20, 150]), (17, 150, [3, 4])] {
        let conv = Conv::new(channels, channels, [padded(y, 3), padded(x, 3)]).expect("a geometry");
        let conv = conv.with_groups(channels).expect("groups").with_bias();
        Problem::integers(conv, n, &mut random).assert_exact::<f32>(&Request::default());
    }
}
