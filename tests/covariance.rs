//! Covariances against the dense oracle: every option, exact on integers, within the derived bound on reals.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::covariance::{Bias, Sharing, Spec, covariance, depth, scratch};
use foof_kernels::{Blend, Element, Input, Par, Triangle};
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::compare::{assert_exact, assert_positive_semidefinite, assert_same_bits, assert_within};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};
use proptest::prelude::*;

fn plain<T: Element>(blend: Blend<T>) -> Spec<'static, T> {
    Spec {
        sharing: Sharing::Expand,
        reduce_scale: T::one(),
        bias: Bias::Without,
        centre: None,
        triangle: Triangle::Full,
        blend,
    }
}

fn run<I: Input + bytemuck::Pod>(
    x: &Buffer<I, 3>,
    spec: &Spec<'_, I::Acc>,
    mut out: Buffer<I::Acc, 2>,
    par: Par,
) -> Buffer<I::Acc, 2> {
    let mut memory = MemBuffer::new(scratch::<I::Acc>(x.shape, spec.bias, spec.sharing, par));
    covariance(out.view_mut(), x.view(), spec, par, MemStack::new(&mut memory));
    out.assert_margins_intact("covariance");
    out
}

/// The rows whose second moment is taken, as the definition has it.
fn rows_of(x: &Dense, [n, t, d]: [usize; 3], sharing: Sharing, scale: f64, centre: &[f64], bias: Bias) -> Dense {
    let count = if sharing == Sharing::Expand { n * t } else { n };
    Dense::from_fn(count, d + bias.columns(), |r, i| {
        if i == d {
            return 1.0;
        }
        let value = match sharing {
            Sharing::Expand => x[(r, i)],
            Sharing::Reduce => (0..t).map(|p| x[(r * t + p, i)]).sum::<f64>() * scale,
        };
        value - centre[i]
    })
}

/// Integers, every option and every layout: exact.
fn integer_options<I: Input + bytemuck::Pod + num_traits::NumCast>()
where
    I::Acc: Element,
{
    let mut random = Random::new(1);
    for [n, t, d] in [[1, 1, 1], [5, 1, 9], [3, 4, 17], [2, 1, 48], [7, 2, 49], [2, 3, 100]] {
        let x = random.integers(n * t, d, 4);
        let centre: Vec<f64> = (0..d).map(|_| random.integer(2)).collect();
        let zero = vec![0.0; d];
        let from = |v: f64| <I::Acc as Element>::from_f64(v);
        let centre_t: Vec<I::Acc> = centre.iter().map(|&c| from(c)).collect();
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            for bias in [Bias::Without, Bias::With] {
                for centred in [false, true] {
                    let rows = rows_of(&x, [n, t, d], sharing, 2.0, if centred { &centre } else { &zero }, bias);
                    let expected = rows.transpose().matmul(&rows);
                    for layout in Layout::ALL {
                        for par in isas() {
                            let spec = Spec {
                                sharing,
                                bias,
                                reduce_scale: from(2.0),
                                centre: centred.then_some(&centre_t[..]),
                                ..plain(Blend::set(from(1.0)))
                            };
                            let size = d + bias.columns();
                            let x = Buffer::<I, 3>::embed(&x.data, [n, t, d], layout);
                            let out = run(&x, &spec, Buffer::poisoned([size, size], layout), par);
                            let what =
                                format!("{par:?} [{n}, {t}, {d}] {sharing:?} {bias:?} centred {centred} {layout:?}");
                            assert_exact(&out.dense(), &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn integers_are_exact_with_every_option() {
    integer_options::<f32>();
    integer_options::<f64>();
    integer_options::<bf16>();
    integer_options::<f16>();
}

/// Every dimension over two panels, depths around the slab and the chunk.
#[test]
fn integers_are_exact_at_every_edge() {
    let mut random = Random::new(2);
    let sizes: Vec<(usize, usize)> = (0..=100)
        .map(|d| (3, d))
        .chain([(127, 30), (128, 30), (129, 30), (3000, 20), (260, 250), (100, 491)])
        .collect();
    for (n, d) in sizes {
        let x = random.integers(n, d, 4);
        let expected = x.transpose().matmul(&x);
        let x = Buffer::<f32, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
        let what = format!("N = {n}, d = {d}");
        for (isa, got) in for_every_par(&what, |par| {
            run(&x, &plain(Blend::set(1.0)), Buffer::poisoned([d, d], Layout::RowMajor), par).elements()
        }) {
            assert_exact(&Dense::from_slice(d, d, &got), &expected, &format!("{isa}: {what}"));
        }
    }
}

#[test]
fn the_upper_triangle_is_left_alone_when_one_is_asked() {
    let mut random = Random::new(3);
    for d in [1, 7, 48, 100, 300] {
        let x = Buffer::<f32, 3>::embed(&random.integers(5, d, 4).data, [5, 1, d], Layout::RowMajor);
        for par in isas() {
            for layout in [Layout::RowMajor, Layout::ColumnMajor] {
                let full = run(&x, &plain(Blend::set(1.0)), Buffer::poisoned([d, d], layout), par);
                let spec = Spec { triangle: Triangle::Lower, ..plain(Blend::set(1.0)) };
                let lower = run(&x, &spec, Buffer::poisoned([d, d], layout), par);
                let (full, lower) = (full.elements(), lower.elements());
                for i in 0..d {
                    assert_same_bits(&lower[i * d..=i * d + i], &full[i * d..=i * d + i], "lower");
                    let untouched = vec![poison::<f32>(); d - i - 1];
                    assert_same_bits(&lower[i * d + i + 1..(i + 1) * d], &untouched, "upper");
                }
            }
        }
    }
}

fn ema_within_bound<T: Element>((n, d): (usize, usize), m: f64, bias: Bias, seed: u64) {
    let mut random = Random::new(seed);
    let x = random.normals(n, d).rounded::<T>();
    let size = d + bias.columns();
    let old = random.normals(size, size);
    let old = old.plus(&old.transpose()).rounded::<T>();
    let m = T::from_f64(m);
    let alpha = (T::one() - m) * T::from_f64(1.0 / n as f64);
    let rows = rows_of(&x, [n, 1, d], Sharing::Expand, 1.0, &vec![0.0; d], bias);
    let expected = old.scaled(m.to_f64()).plus(&rows.transpose().matmul(&rows).scaled(alpha.to_f64()));
    let magnitude = rows.abs().transpose().matmul(&rows.abs());
    let x = Buffer::<T, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
    let spec = Spec { bias, ..plain(Blend { alpha, beta: m }) };
    let what = format!("N = {n}, d = {d}, m = {m}");
    for (isa, got) in for_every_par(&what, |par| run(&x, &spec, Buffer::matrix(&old, Layout::RowMajor), par).elements())
    {
        // The portable path rounds each product too: one more than the chain of additions.
        let depth = depth::<T>([n, 1, d], bias, Sharing::Expand, Par::seq().with_isa(isa)) + 1;
        let coefficients = (alpha.to_f64(), m.to_f64());
        let bound = bounds::blended_product(Format::of::<T>(), &magnitude, coefficients, &old, n, depth);
        let got = Dense::from_slice(size, size, &got);
        assert_within(&got, &expected, &bound, &format!("{isa}: {what}"));
        assert!(got.is_symmetric(), "{isa}: {what}: symmetric to the bit");
        if m == T::zero() {
            assert_positive_semidefinite(&got, bound.frobenius(), &format!("{isa}: {what}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn averages_are_within_the_bound(
        n in 1usize..300, d in 1usize..60, m in prop::sample::select(vec![0.0, 0.5, 0.95, 0.999]), with_bias: bool, seed: u64,
    ) {
        let bias = if with_bias { Bias::With } else { Bias::Without };
        ema_within_bound::<f32>((n, d), m, bias, seed);
        ema_within_bound::<f64>((n, d), m, bias, seed);
    }

    /// Integers make the sums exact, so order and grouping of the batch cannot matter by a bit.
    #[test]
    fn permuting_and_splitting_the_batch_changes_nothing(n in 2usize..60, d in 1usize..60, seed: u64) {
        let mut random = Random::new(seed);
        let x = random.integers(n, d, 8);
        let order = random.permutation(n);
        let permuted = Dense::from_fn(n, d, |i, j| x[(order[i], j)]);
        let cut = 1 + random.below(n - 1);
        for par in isas() {
            let moment = |x: &Dense, out, blend| {
                run(&Buffer::<f32, 3>::embed(&x.data, [x.rows, 1, d], Layout::RowMajor), &plain(blend), out, par)
            };
            let fresh = || Buffer::poisoned([d, d], Layout::RowMajor);
            let whole = moment(&x, fresh(), Blend::set(1.0));
            let other = moment(&permuted, fresh(), Blend::set(1.0));
            assert_same_bits(&other.elements(), &whole.elements(), "permuted");
            let first = moment(&x.block(0..cut, 0..d), fresh(), Blend::set(1.0));
            let both = moment(&x.block(cut..n, 0..d), first, Blend::add(1.0));
            assert_same_bits(&both.elements(), &whole.elements(), "split");
        }
    }

    /// Powers of two scale without rounding: activations times `2^k` give the covariance times `4^k`, to the bit.
    #[test]
    fn scaling_by_powers_of_two_is_exact(n in 1usize..60, d in 1usize..60, power in -10i32..10, seed: u64) {
        let x = Random::new(seed).normals(n, d).rounded::<f32>();
        let factor = f64::from(power).exp2();
        for par in isas() {
            let moment = |x: &Dense| {
                let x = Buffer::<f32, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
                run(&x, &plain(Blend::set(0.3)), Buffer::poisoned([d, d], Layout::RowMajor), par).dense()
            };
            assert_exact(&moment(&x.scaled(factor)), &moment(&x).scaled(factor * factor), "scaled");
        }
    }
}

/// At a benchmark's size: `A v` against `X^T (X v)` for a random `v`, in f64, by the bound times `|v|`.
#[test]
fn benchmark_sizes_pass_a_random_vector_check() {
    let (n, d) = (1000, 1000);
    let mut random = Random::new(5);
    let x = random.normals(n, d).rounded::<f32>();
    let v = random.normals(d, 1);
    let expected = x.transpose().matmul(&x.matmul(&v));
    let magnitude = x.abs().transpose().matmul(&x.abs().matmul(&v.abs()));
    let format = Format::of::<f32>();
    let buffer = Buffer::<f32, 3>::embed(&x.data, [n, 1, d], Layout::RowMajor);
    for par in isas() {
        let a = run(&buffer, &plain(Blend::set(1.0)), Buffer::poisoned([d, d], Layout::RowMajor), par).dense();
        let depth = depth::<f32>([n, 1, d], Bias::Without, Sharing::Expand, par) + 1;
        // The oracle multiplies twice and the check once in f64: gamma_(n + d) of that format each.
        let bound = magnitude.scaled(format.gamma(depth) + F64.gamma(2 * (n + d)));
        let tiny = n as f64 * format.tiny * v.frobenius() * (d as f64).sqrt();
        assert_within(&a.matmul(&v), &expected, &bound.map(|b| b + tiny), &format!("{par:?}"));
    }
}
