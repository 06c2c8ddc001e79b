//! Unfolded convolutions: patches and factors by hand, and the golden network's.

use foof_oracle::Dense;
use foof_oracle::bounds::F64;
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::fisher::Sharing;
use foof_oracle::generate::Random;
use foof_oracle::network::Bias;
use foof_oracle::unfold::{Convolution, Order, group, positions_first};

/// The patches of one image of one group.
fn patches(convolution: Convolution, image: &[f64], channels: usize, size: [usize; 3], order: Order) -> Dense {
    convolution.unfold(image, channels, size, 0, order).remove(0)
}

/// Three zeros before (more than the two taps) and one after `1 2 3 4`, every second position.
#[test]
fn one_axis_with_padding_wider_than_the_kernel() {
    let convolution = Convolution { stride: [1, 1, 2], padding: [[0, 0], [0, 0], [3, 1]], ..Convolution::one(2) };
    let got = patches(convolution, &[1.0, 2.0, 3.0, 4.0], 1, [1, 1, 4], Order::ChannelTaps);
    let expected = Dense::from_rows(&[[0.0, 0.0], [0.0, 1.0], [2.0, 3.0], [4.0, 0.0]]);
    assert_exact(&got, &expected, "patches");
}

/// A 2x2 kernel on one 2x3 channel, stride (1,2): columns (-1,0) and (1,2) with a zero on the left; the last column falls to the
/// stride's gap unless a zero on the right makes room for it.
#[test]
fn two_axes() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let padded = |low, high| {
        let padding = [[0, 0], [0, 0], [low, high]];
        Convolution { stride: [1, 1, 2], padding, ..Convolution::two([2, 2]) }
    };
    let of = |convolution| patches(convolution, &image, 1, [1, 2, 3], Order::ChannelTaps);
    let left = Dense::from_rows(&[[0.0, 1.0, 0.0, 4.0], [2.0, 3.0, 5.0, 6.0]]);
    assert_exact(&of(padded(1, 0)), &left, "a zero on the left");
    assert_exact(&of(padded(1, 1)), &left, "and one that no tap reaches");
    let right = Dense::from_rows(&[[1.0, 2.0, 4.0, 5.0], [3.0, 0.0, 6.0, 0.0]]);
    assert_exact(&of(padded(0, 1)), &right, "a zero on the right");
    let dilated = Convolution { dilation: [1, 1, 2], ..Convolution::two([2, 2]) };
    assert_exact(&of(dilated), &Dense::from_rows(&[[1.0, 3.0, 4.0, 6.0]]), "dilated");
}

/// Two channels of two planes of one row of two; taps over planes and columns.
#[test]
fn three_axes_in_both_orders() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let of = |kernel, order| patches(Convolution::new(kernel), &image, 2, [2, 1, 2], order);
    let channels_first = Dense::from_rows(&[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]);
    assert_exact(&of([2, 1, 2], Order::ChannelTaps), &channels_first, "channel, taps");
    let taps_first = Dense::from_rows(&[[1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0]]);
    assert_exact(&of([2, 1, 2], Order::TapsChannel), &taps_first, "taps, channel");
    let planes = Dense::from_rows(&[[1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]]);
    assert_exact(&of([2, 1, 1], Order::ChannelTaps), &planes, "two positions");
}

#[test]
fn groups_see_their_own_channels() {
    let images = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let convolution = Convolution { groups: 2, ..Convolution::one(2) };
    for (g, first, second) in [(0, [1.0, 2.0], [5.0, 6.0]), (1, [3.0, 4.0], [7.0, 8.0])] {
        let got = convolution.unfold(&images, 2, [1, 1, 2], g, Order::TapsChannel);
        assert_eq!(got, [Dense::from_rows(&[first]), Dense::from_rows(&[second])], "group {g} of two images");
    }
    let rows = positions_first(&[1.0, 2.0, 3.0, 4.0], 2);
    assert_exact(&rows, &Dense::from_rows(&[[1.0, 3.0], [2.0, 4.0]]), "rows");
    assert_exact(&group(&rows, 1, 2), &Dense::from_rows(&[[3.0], [4.0]]), "second group");
}

/// Patches (1,2) and (2,3) of one image, their mean (3/2, 5/2).
#[test]
fn factors_by_hand() {
    let of = |bias, sharing| {
        let factors =
            Convolution::one(2).input_factors(&[1.0, 2.0, 3.0], 1, [1, 1, 3], Order::ChannelTaps, bias, sharing);
        factors[0].clone()
    };
    let expand = Dense::from_rows(&[[5.0, 8.0], [8.0, 13.0]]);
    assert_exact(&of(Bias::Without, Sharing::Expand), &expand, "expand");
    let with_bias = Dense::from_rows(&[[5.0, 8.0, 3.0], [8.0, 13.0, 5.0], [3.0, 5.0, 2.0]]);
    assert_exact(&of(Bias::With, Sharing::Expand), &with_bias, "expand, with bias");
    let reduce = Dense::from_rows(&[[2.25, 3.75], [3.75, 6.25]]);
    assert_exact(&of(Bias::Without, Sharing::Reduce), &reduce, "reduce");
    let with_bias = Dense::from_rows(&[[2.25, 3.75, 1.5], [3.75, 6.25, 2.5], [1.5, 2.5, 1.0]]);
    assert_exact(&of(Bias::With, Sharing::Reduce), &with_bias, "reduce, with bias");
}

/// The orders list the same numbers, and the generic patches are those of `f64`: random geometries, position by position.
#[test]
fn orders_are_permutations_of_each_other() {
    let mut random = Random::new(30);
    for _ in 0..200 {
        let mut three = |least: usize, count: usize| [0; 3].map(|_| least + random.below(count));
        let (size, kernel, stride) = (three(1, 4), three(1, 3), three(1, 2));
        let (low, high, dilation) = (three(2, 3), three(2, 3), three(1, 2));
        let padding = std::array::from_fn(|axis| [low[axis], high[axis]]);
        let convolution = Convolution { stride, padding, dilation, groups: 2, ..Convolution::new(kernel) };
        let (channels, taps) = (4, kernel.iter().product::<usize>());
        let image = random.integers(channels, size.iter().product(), 9).data;
        let rounded: Vec<f32> = image.iter().map(|&v| v as f32).collect();
        for g in 0..2 {
            let [a, b] = [Order::ChannelTaps, Order::TapsChannel]
                .map(|order| convolution.unfold(&image, channels, size, g, order).remove(0));
            let (rows, cols) = (a.rows, a.cols);
            assert_eq!(rows, convolution.output(size).iter().product::<usize>());
            let permuted = Dense::from_fn(rows, cols, |t, f| b[(t, f % taps * 2 + f / taps)]);
            assert_exact(&permuted, &a, &format!("{convolution:?} of {size:?}"));
            let narrow = convolution.patches(&rounded, 0.0f32, channels, size, g, Order::ChannelTaps);
            assert_exact(&Dense::from_slice(rows, cols, &narrow), &a, "in single precision");
        }
    }
}

/// PyTorch's factors of the golden network's convolutions, within `2 gamma` of the roundings of either evaluation (as in
/// `golden.rs`): `N T` terms and two scalings, or `N` terms of two means of `T`.
#[test]
fn golden_factors() {
    let case = Case::load("cnn");
    for (l, convolution) in case.layers.iter().enumerate() {
        let Some(convolution) = convolution else { continue };
        let (images, shape) = (case.golden.values(&format!("input.{l}")), case.golden.shape(&format!("input.{l}")));
        let (n, size) = (shape[0], [1, shape[2], shape[3]]);
        let t = convolution.output(size).iter().product::<usize>();
        let absolute: Vec<f64> = images.iter().map(|v| v.abs()).collect();
        for (sharing, tensor, depth) in [
            (Sharing::Expand, "factor_input", n * t + 2),
            (Sharing::Reduce, "factor_input_reduce", n + 2 + 2 * (t + 1)),
        ] {
            let of =
                |images| convolution.input_factors(images, shape[1], size, Order::ChannelTaps, Bias::Without, sharing);
            let golden = case.golden.blocks(&format!("{tensor}.{l}"));
            let (factors, magnitudes) = (of(&images), of(&absolute));
            assert_eq!(factors.len(), golden.len());
            for ((factor, magnitude), golden) in factors.iter().zip(&magnitudes).zip(&golden) {
                let bound = magnitude.scaled(2.0 * F64.gamma(depth));
                assert_within(factor, golden, &bound, &format!("layer {l}: {tensor}"));
            }
        }
    }
}
