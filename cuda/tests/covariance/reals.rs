//! Reals, within the bounds that follow from how each rung rounds.

use crate::run::{Number, embedded, plain, rows_of, run, rungs, stream_in_order};
use foof_cuda::covariance::{Rung, Spec, depth};
use foof_cuda::tile::{Math, Tile};
use foof_kernels::covariance::Bias;
use foof_kernels::{Blend, Element};
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::compare::{assert_exact, assert_positive_semidefinite, assert_within};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};
use num_traits::{One, Zero};
use proptest::prelude::*;

fn rounded<I: Number>(x: &Dense) -> Dense {
    x.map(|v| I::from(v).expect("representable").to_f64().expect("representable"))
}

/// An average on every rung. One that rounds its inputs gives an average of other inputs, semidefinite by itself.
fn average_within_bound<I: Number>((n, d): (usize, usize), m: f64, bias: Bias, seed: u64) {
    let mut random = Random::new(seed);
    let x = rounded::<I>(&random.normals(n, d));
    let size = d + bias.columns();
    let old = random.normals(size, size);
    let old = old.plus(&old.transpose()).rounded::<I::Acc>();
    let m = <I::Acc as Element>::from_f64(m);
    let alpha = (I::Acc::one() - m) * <I::Acc as Element>::from_f64(1.0 / n as f64);
    let spec = Spec { bias, ..plain(Blend { alpha, beta: m }) };
    let rows = rows_of(&x, [n, 1, d], &spec);
    let (alpha, decay) = (Element::to_f64(alpha), Element::to_f64(m));
    let expected = old.scaled(decay).plus(&rows.transpose().matmul(&rows).scaled(alpha));
    let magnitude = rows.abs().transpose().matmul(&rows.abs());
    let x = embedded::<I>(&x, [n, 1, d], seed as usize % 64);
    for (turn, rung) in rungs::<I>(false).into_iter().enumerate() {
        let Some(stream) = stream_in_order(turn + n) else { return };
        let depth = depth::<I>(rung, [n, 1, d], &spec);
        let bound = bounds::blended_product(Format::of::<I::Acc>(), &magnitude, (alpha, decay), &old, n, depth);
        let out = match m.is_zero() {
            true => Buffer::poisoned([size, size], Layout::RowMajor),
            false => Buffer::matrix(&old, Layout::RowMajor),
        };
        let got = run(&stream, rung, &x, &spec, out).dense();
        let what = format!("N = {n}, d = {d}, m = {decay}, {rung:?}");
        assert_within(&got, &expected, &bound, &what);
        assert!(got.is_symmetric(), "{what}: symmetric to the bit");
        if m.is_zero() {
            assert_positive_semidefinite(&got, bound.frobenius(), &what);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn averages_are_within_the_bound(
        n in 1usize..100, d in 1usize..70, m in prop::sample::select(vec![0.0, 0.5, 0.95, 0.999]), with_bias: bool, seed: u64,
    ) {
        let bias = if with_bias { Bias::With } else { Bias::Without };
        average_within_bound::<f32>((n, d), m, bias, seed);
        average_within_bound::<f64>((n, d), m, bias, seed);
        average_within_bound::<bf16>((n, d), m, bias, seed);
        average_within_bound::<f16>((n, d), m, bias, seed);
    }

    /// Powers of two scale without rounding, also in the parts of a factor: activations times `2^k` give the covariance times `4^k`, to the bit.
    #[test]
    fn scaling_by_powers_of_two_is_exact(n in 1usize..60, d in 1usize..30, power in -10i32..10, seed: u64) {
        let x = Random::new(seed).normals(n, d).rounded::<f32>();
        let factor = f64::from(power).exp2();
        for rung in rungs::<f32>(false) {
            let Some(stream) = stream_in_order(n) else { return Ok(()) };
            let moment = |x: &Dense| {
                let x = Buffer::<f32, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
                run(&stream, rung, &x, &plain(Blend::set(0.3)), Buffer::poisoned([d, d], Layout::RowMajor)).dense()
            };
            assert_exact(&moment(&x.scaled(factor)), &moment(&x).scaled(factor * factor), "scaled");
        }
    }
}

/// Chunks add their own roundings, and no others.
#[test]
fn deep_averages_are_within_the_bound() {
    average_within_bound::<f32>((700, 5), 0.95, Bias::With, 7);
    average_within_bound::<f64>((1100, 3), 0.0, Bias::Without, 8);
    average_within_bound::<f16>((600, 7), 0.0, Bias::With, 9);
}

/// Three TF32 products are f32's accuracy: the bound is a tenth of one TF32 product's, and tighter than a chain of f32 from some depth on.
#[test]
fn three_products_are_bounded_as_f32_is() {
    let bound = |math, n| {
        let rung = Rung::Tiles { math, tile: Tile::SMALL };
        depth::<f32>(rung, [n, 1, 40], &plain(Blend::set(1.0f32)))
    };
    assert!(10 * bound(Math::Tf32x3, 100) < bound(Math::Tf32, 100));
    assert!(bound(Math::Tf32x3, 200) < bound(Math::Fma, 200));
}

/// Too many entries for the dense oracle: `A v` against `X^T (X v)` for a random `v`, in f64, by the bound times `|v|`.
#[test]
fn larger_sizes_pass_a_random_vector_check() {
    let (n, d) = (260, 300);
    let mut random = Random::new(5);
    let x = random.normals(n, d).rounded::<f32>();
    let v = random.normals(d, 1);
    let expected = x.transpose().matmul(&x.matmul(&v));
    let magnitude = x.abs().transpose().matmul(&x.abs().matmul(&v.abs()));
    let format = Format::of::<f32>();
    let buffer = Buffer::<f32, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
    let spec = plain(Blend::set(1.0));
    for rung in rungs::<f32>(false) {
        let Some(stream) = stream_in_order(1) else { return };
        let a = run(&stream, rung, &buffer, &spec, Buffer::poisoned([d, d], Layout::RowMajor)).dense();
        let depth = depth::<f32>(rung, [n, 1, d], &spec) + 1;
        // The oracle multiplies twice and the check once in f64: gamma_(n + d) of that format each.
        let bound = magnitude.scaled(format.gamma(depth) + F64.gamma(2 * (n + d)));
        let tiny = n as f64 * format.tiny * v.frobenius() * (d as f64).sqrt();
        assert_within(&a.matmul(&v), &expected, &bound.map(|b| b + tiny), &format!("{rung:?}"));
    }
}
