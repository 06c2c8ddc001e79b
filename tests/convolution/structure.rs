//! What holds without an oracle: batches permuted, split, scaled; the two orders of features; groups against separate layers.

use crate::run::{OnCpu, plans};
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::{Element, Par};
use foof_oracle::compare::assert_same_bits;
use foof_oracle::images::{Problem, Request, padded};
use foof_oracle::kernels::isas;
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

/// The factor by plan `number`, onto `old` if it is given.
fn factor<T: Element>(problem: &Problem, number: usize, request: &Request, old: Option<&[T]>, par: Par) -> Vec<T> {
    let plan = &plans::<T>(&problem.conv, par)[number];
    let mut out = problem.output::<T>(&[], &Request { blend: [1.0, 0.0], ..*request });
    if let Some(old) = old {
        let places = out.places();
        places.into_iter().zip(old).for_each(|(place, &value)| out.data[place] = value);
    }
    let images = problem.images::<T>(request.images);
    problem.run(&images, plan, request, out, par).elements()
}

fn convolution(channels: usize, stride: usize, taps_channel: bool) -> Conv {
    let conv = Conv::new(channels, 1, [padded(7, 3), padded(6, 3).stride(stride)]).expect("a geometry").with_bias();
    if taps_channel { conv.with_order(FeatureOrder::TapsChannel) } else { conv }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Integers make the sums exact, so order and grouping of the batch cannot matter by a bit.
    #[test]
    fn permuting_and_splitting_the_batch_changes_nothing(
        n in 2usize..12, channels in 1usize..30, stride in 1usize..=2, taps_channel: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let problem = Problem::integers(convolution(channels, stride, taps_channel), n, &mut random);
        let length = problem.image_len();
        let order = random.permutation(n);
        let image = |k: usize| problem.x[k * length..(k + 1) * length].to_vec();
        let permuted = problem.with(n, order.iter().flat_map(|&k| image(k)).collect());
        let cut = 1 + random.below(n - 1);
        let parts = [problem.with(cut, problem.x[..cut * length].to_vec()), problem.with(n - cut, problem.x[cut * length..].to_vec())];
        let (set, add) = (Request::default(), Request { blend: [1.0, 1.0], ..Request::default() });
        for par in isas() {
            for plan in 0..2 {
                let whole = factor::<f32>(&problem, plan, &set, None, par);
                assert_same_bits(&factor::<f32>(&permuted, plan, &set, None, par), &whole, "permuted");
                let first = factor::<f32>(&parts[0], plan, &set, None, par);
                assert_same_bits(&factor::<f32>(&parts[1], plan, &add, Some(&first), par), &whole, "split");
            }
        }
    }

    /// Powers of two scale without rounding: images times `2^k` give the features' covariance times `4^k`, to the bit.
    #[test]
    fn scaling_by_powers_of_two_is_exact(
        n in 1usize..8, channels in 1usize..30, stride in 1usize..=2, power in -10i32..10, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let conv = Conv::new(channels, 1, [padded(7, 3), padded(6, 3).stride(stride)]).expect("a geometry");
        let problem = Problem::normals::<f32>(conv, n, &mut random);
        let factor_of_two = f64::from(power).exp2();
        let scaled = problem.with(n, problem.x.iter().map(|v| v * factor_of_two).collect());
        let request = Request { blend: [0.3, 0.0], ..Request::default() };
        for par in isas() {
            for plan in 0..2 {
                let square = (factor_of_two * factor_of_two) as f32;
                let expected: Vec<f32> = factor::<f32>(&problem, plan, &request, None, par).iter().map(|v| v * square).collect();
                assert_same_bits(&factor::<f32>(&scaled, plan, &request, None, par), &expected, "scaled");
            }
        }
    }
}

/// The same numbers in another place, whatever the data.
#[test]
fn orders_of_features_agree_to_the_bit() {
    let mut random = Random::new(1);
    for channels in [1, 3, 20, 50] {
        let by_taps = Problem::normals::<f32>(convolution(channels, 1, false), 4, &mut random);
        let by_channels = Problem { conv: by_taps.conv.with_order(FeatureOrder::TapsChannel), ..by_taps.clone() };
        let (taps, size) = (by_taps.conv.taps(), by_taps.conv.factor_size());
        let place = |i: usize| if i == size - 1 { i } else { by_channels.conv.feature(i / taps, i % taps) };
        for par in isas() {
            let [a, b] = [&by_taps, &by_channels].map(|p| factor::<f32>(p, 0, &Request::default(), None, par));
            let expected: Vec<f32> = (0..size * size).map(|k| b[place(k / size) * size + place(k % size)]).collect();
            assert_same_bits(&a, &expected, &format!("{channels} channels, {par:?}"));
        }
    }
}

/// One factor of a grouped layer is that of its channels alone.
#[test]
fn groups_agree_with_separate_layers_to_the_bit() {
    let mut random = Random::new(2);
    let axes = [padded(6, 3), padded(5, 2)];
    let conv = Conv::new(12, 4, axes).expect("a geometry").with_groups(4).expect("groups");
    let problem = Problem::normals::<f32>(conv, 3, &mut random);
    let alone = Conv::new(3, 1, axes).expect("a geometry");
    let size = conv.factor_size();
    for par in isas() {
        let all = factor::<f32>(&problem, 0, &Request::default(), None, par);
        for (g, group) in all.chunks_exact(size * size).enumerate() {
            let length = alone.input_shape(1).iter().product::<usize>();
            let images = problem.x.chunks_exact(4 * length).flat_map(|x| &x[g * length..(g + 1) * length]);
            let problem = Problem { conv: alone, n: 3, x: images.copied().collect() };
            assert_same_bits(&factor::<f32>(&problem, 0, &Request::default(), None, par), group, &format!("group {g}"));
        }
    }
}

/// A convolution whose kernel is as large as its image is a dense layer.
#[test]
fn a_whole_image_is_a_dense_row() {
    let mut random = Random::new(3);
    let conv = Conv::new(5, 1, [Axis::new(3, 3), Axis::new(4, 4)]).expect("a geometry");
    let problem = Problem::integers(conv, 7, &mut random);
    let rows = Dense::from_slice(7, 60, &problem.x);
    let expected = Buffer::<f32, 2>::matrix(&rows.transpose().matmul(&rows), Layout::RowMajor).elements();
    for par in isas() {
        for plan in 0..2 {
            assert_same_bits(&factor::<f32>(&problem, plan, &Request::default(), None, par), &expected, "dense");
        }
    }
}
