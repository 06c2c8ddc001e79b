//! Damped inverses and solves of batches, one matrix in each lane: residuals within the bounds of Cholesky's inverse, exact integers, failures that
//! disturb nobody.

use foof::inverse::{
    Dampings, batched_damped_inverse, batched_damped_inverse_alloc, batched_damped_inverse_scratch, batched_solve_alloc,
};
use foof::{Element, Error, MemBuffer, MemStack, Par, Triangle, View, ViewMut};
use foof_kernels::batched::{Item, damped_inverse_list, damped_inverse_scratch};
use foof_oracle::bounds::{self, F64, Format, Outcome};
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::{Dense, Random};

fn embed<T: Element>(matrices: &[Dense], shape: [usize; 3], layout: Layout) -> Buffer<T, 3> {
    let values: Vec<f64> = matrices.iter().flat_map(|m| m.data.iter().copied()).collect();
    Buffer::embed(&values, shape, layout)
}

/// Positive definite matrices of order `n`, rounded to `T`.
fn definite<T: Element>(random: &mut Random, batch: usize, n: usize, condition: f64) -> Vec<Dense> {
    (0..batch).map(|_| random.symmetric(&log_spectrum(n, condition)).rounded::<T>()).collect()
}

fn invert<T: Element>(
    a: &[Dense],
    n: usize,
    damping: Dampings<'_, T>,
    layouts: [Layout; 2],
    par: Par,
) -> (Buffer<T, 3>, Result<(), Error>) {
    let shape = [a.len(), n, n];
    let (a, mut out) = (embed::<T>(a, shape, layouts[0]), Buffer::poisoned(shape, layouts[1]));
    let result = batched_damped_inverse_alloc(out.view_mut(), a.view(), T::one(), damping, Triangle::Full, par);
    out.assert_margins_intact("batched_damped_inverse");
    (out, result)
}

/// The same matrices, of which the rows are columns in memory: each matrix column-major where the layout has contiguous rows.
fn transposed<T>(mut buffer: Buffer<T, 3>) -> Buffer<T, 3> {
    buffer.strides.swap(1, 2);
    buffer
}

const ROWS: [Layout; 2] = [Layout::RowMajor; 2];

/// The matrix `index` of a batch, widened.
fn matrix<T: Element>(out: &Buffer<T, 3>, index: usize) -> Dense {
    let n = out.shape[1];
    let elements = out.elements();
    let values: Vec<f64> = elements[index * n * n..][..n * n].iter().map(|&v| Element::to_f64(v)).collect();
    Dense::from_slice(n, n, &values)
}

/// `|A X - I|` for the sum of at most `n` terms, two roundings by the pivot's reciprocal, one more of each product where there is no FMA, and two that
/// form `A + lambda I`: `n + 5`, which `sweep(n)` covers.
fn residuals_within_bound<T: Element>(orders: impl Iterator<Item = usize>, condition: f64) {
    let mut random = Random::new(31);
    let format = Format::of::<T>();
    for n in orders {
        let batch = if n > 40 { 2 } else { 5 };
        let a = definite::<T>(&mut random, batch, n, condition);
        let dampings: Vec<f64> = (0..batch).map(|b| 0.125 + b as f64 / 8.0).collect();
        let each: Vec<T> = dampings.iter().map(|&d| T::from_f64(d)).collect();
        for par in isas() {
            let (out, result) = invert::<T>(&a, n, Dampings::Each(&each), ROWS, par);
            result.expect("positive definite");
            for (index, a) in a.iter().enumerate() {
                let (damped, x) = (a.damped(dampings[index]), matrix(&out, index));
                let traces = (damped.trace(), damped.inverse().trace());
                let bound = bounds::inverse_residual(format, traces.0, traces.1, bounds::sweep(n))
                    + F64.gamma(n) * traces.0 * traces.1;
                assert!(bound < 1.0, "n = {n}: the bound says nothing: {bound:e}");
                let residual = damped.matmul(&x).minus(&Dense::identity(n)).frobenius();
                assert!(residual <= bound, "{par:?} n = {n}, matrix {index}: {residual:e}, bound {bound:e}");
                assert!(x.is_symmetric(), "{par:?} n = {n}: symmetric to the bit");
            }
        }
    }
}

#[test]
fn inverses_have_small_residuals() {
    residuals_within_bound::<f32>(1..=70, 4.0);
    residuals_within_bound::<f64>((1..=36).chain([47, 48, 49, 63, 64, 65, 100, 127, 128, 129, 130]), 100.0);
    residuals_within_bound::<f64>([2, 17, 64].into_iter(), 1e6);
}

/// `A = L L^T` with a bidiagonal `L` of ones: its inverse is all integers, found exactly by any order of sums.
#[test]
fn integer_inverses_are_exact() {
    let mut random = Random::new(32);
    for n in 0..=130 {
        let l = Dense::from_fn(n, n, |i, j| match i.wrapping_sub(j) {
            0 => 1.0,
            1 => random.integer(1),
            _ => 0.0,
        });
        let a = l.matmul(&l.transpose());
        // Y L = I, row by row.
        let mut y = Dense::identity(n);
        for i in 0..n {
            for j in (0..i).rev() {
                y[(i, j)] = -y[(i, j + 1)] * l[(j + 1, j)];
            }
        }
        let expected = y.transpose().matmul(&y);
        for par in isas() {
            let (out, result) =
                invert::<f32>(&[a.clone(), Dense::identity(n), a.clone()], n, Dampings::Same(0.0), ROWS, par);
            result.expect("positive definite");
            for (index, expected) in [&expected, &Dense::identity(n), &expected].into_iter().enumerate() {
                assert_exact(&matrix(&out, index), expected, &format!("{par:?} n = {n}, matrix {index}"));
            }
        }
    }
}

/// A matrix's inverse does not depend on where in which batch it stands: every batch size, remainders of lanes included.
#[test]
fn every_batch_size_gives_each_matrix_its_own_inverse() {
    let mut random = Random::new(33);
    for n in [1, 4, 5, 16, 19] {
        let a = definite::<f32>(&mut random, 70, n, 10.0);
        for par in isas() {
            let (whole, result) = invert::<f32>(&a, n, Dampings::Same(0.5), ROWS, par);
            result.expect("positive definite");
            for batch in 0..=70 {
                let (out, result) = invert::<f32>(&a[70 - batch..], n, Dampings::Same(0.5), ROWS, par);
                result.expect("positive definite");
                let expected = &whole.elements()[(70 - batch) * n * n..];
                assert_same_bits(&out.elements(), expected, &format!("{par:?} n = {n}, {batch} matrices"));
            }
        }
    }
}

fn layouts_agree<T: Element>() {
    let mut random = Random::new(34);
    for n in [1, 3, 8, 12, 21, 34] {
        let a = definite::<T>(&mut random, 19, n, 10.0);
        for par in isas() {
            let (expected, _) = invert::<T>(&a, n, Dampings::Same(T::from_f64(0.5)), ROWS, par);
            for from in Layout::ALL {
                for to in Layout::ALL {
                    let (out, result) = invert::<T>(&a, n, Dampings::Same(T::from_f64(0.5)), [from, to], par);
                    result.expect("positive definite");
                    let what = format!("{par:?} n = {n} from {from:?} to {to:?}");
                    assert_same_bits(&out.elements(), &expected.elements(), &what);
                }
            }
        }
    }
}

/// Symmetric matrices and right-hand sides by columns.
#[test]
fn transposed_views_give_the_same_bits() {
    let mut random = Random::new(42);
    for n in [1, 3, 8, 21, 34] {
        let a = definite::<f32>(&mut random, 19, n, 10.0);
        let b: Vec<Dense> = (0..19).map(|_| random.normals(n, n)).collect();
        let shape = [19, n, n];
        for par in isas() {
            let (expected, _) = invert::<f32>(&a, n, Dampings::Same(0.5), ROWS, par);
            let (rows, right) = (embed::<f32>(&a, shape, Layout::RowMajor), embed::<f32>(&b, shape, Layout::RowMajor));
            let mut solved = Buffer::<f32, 3>::poisoned(shape, Layout::RowMajor);
            let damping = Dampings::Same(0.5);
            batched_solve_alloc(solved.view_mut(), rows.view(), right.view(), 1.0, damping, par).expect("definite");
            let turned: Vec<Dense> = b.iter().map(Dense::transpose).collect();
            for layout in Layout::ALL {
                // Symmetric: the values of a matrix are those of its transpose.
                let from = transposed(embed::<f32>(&a, shape, layout));
                let mut out = transposed(Buffer::<f32, 3>::poisoned(shape, layout));
                batched_damped_inverse_alloc(out.view_mut(), from.view(), 1.0, damping, Triangle::Full, par)
                    .expect("definite");
                out.assert_margins_intact("batched_damped_inverse");
                let what = format!("{par:?} n = {n} {layout:?}");
                assert_same_bits(&out.elements(), &expected.elements(), &what);
                let right = transposed(embed::<f32>(&turned, shape, layout));
                let mut out = transposed(Buffer::<f32, 3>::poisoned(shape, layout));
                batched_solve_alloc(out.view_mut(), from.view(), right.view(), 1.0, damping, par).expect("definite");
                out.assert_margins_intact("batched_solve");
                assert_same_bits(&out.elements(), &solved.elements(), &what);
            }
        }
    }
}

#[test]
fn every_layout_gives_the_same_bits() {
    layouts_agree::<f32>();
    layouts_agree::<f64>();
}

/// The upper triangles of the inputs are NaN, those of the outputs are left alone.
#[test]
fn a_triangle_is_read_and_a_triangle_written() {
    let mut random = Random::new(35);
    for n in [1, 2, 5, 8, 16, 30, 129] {
        let a = definite::<f32>(&mut random, 18, n, 10.0);
        let shape = [18, n, n];
        let upper: Vec<bool> = (0..18 * n * n).map(|k| k % n > k / n % n).collect();
        for par in isas() {
            let (expected, _) = invert::<f32>(&a, n, Dampings::Same(0.25), ROWS, par);
            for (layout, turn) in Layout::ALL.into_iter().flat_map(|layout| [(layout, false), (layout, true)]) {
                let turn = |buffer| if turn { transposed(buffer) } else { buffer };
                let mut from = turn(embed::<f32>(&a, shape, layout));
                let places = from.places();
                places.iter().zip(&upper).filter(|(_, upper)| **upper).for_each(|(&k, _)| from.data[k] = f32::NAN);
                let mut out = turn(Buffer::<f32, 3>::poisoned(shape, layout));
                let damping = Dampings::Same(0.25);
                batched_damped_inverse_alloc(out.view_mut(), from.view(), 1.0, damping, Triangle::Lower, par)
                    .expect("definite");
                out.assert_margins_intact("batched_damped_inverse");
                // The order of sums of a single large matrix follows its layout.
                let exact = n <= 128;
                for (k, (got, want)) in out.elements().into_iter().zip(expected.elements()).enumerate() {
                    let want = if upper[k] { poison() } else { want };
                    let same = got.to_bits() == want.to_bits();
                    assert!(
                        same || !(exact || upper[k]),
                        "{par:?} n = {n} {layout:?}: element {k} is {got}, not {want}"
                    );
                }
            }
        }
    }
}

/// A negative pivot at every position, in several lanes of a batch: named, its output untouched, its neighbours' bits those of a batch without it.
#[test]
fn failures_are_named_and_disturb_nobody() {
    let mut random = Random::new(36);
    for n in [1, 2, 4, 7, 16, 33, 129] {
        let sound = definite::<f32>(&mut random, 37, n, 10.0);
        for par in isas() {
            let (expected, _) = invert::<f32>(&sound, n, Dampings::Same(0.0), ROWS, par);
            // All positions of orders that go by lanes, a few of one that does not.
            for at in (0..n).step_by(if n > 128 { 43 } else { 1 }) {
                let bad = [(0, 0), (5, 2), (36, 1)];
                let mut a = sound.clone();
                for (index, later) in bad {
                    let pivot = (at + later) % n;
                    a[index] = Dense::from_fn(n, n, |i, j| match (i == j, i == pivot) {
                        (true, true) => -3.0,
                        (true, false) => 4.0,
                        _ => 0.0,
                    });
                }
                let (out, result) = invert::<f32>(&a, n, Dampings::Same(0.0), ROWS, par);
                let pivot = |later| Error::NotPositiveDefinite { layer: None, pivot: (at + later) % n, value: -3.0 };
                let failures = bad.map(|(index, later)| (index, pivot(later))).to_vec();
                assert_eq!(result, Err(Error::Items { failures }), "{par:?} n = {n}");
                let mut wanted = expected.elements();
                for (index, _) in bad {
                    wanted[index * n * n..][..n * n].fill(poison());
                }
                assert_same_bits(&out.elements(), &wanted, &format!("{par:?} n = {n}, pivot {at}"));
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_named_by_matrix_and_entry() {
    let mut random = Random::new(37);
    for n in [3, 17, 130] {
        for (value, i, j) in [(f64::NAN, n - 1, 0), (f64::INFINITY, 2, 1), (f64::NEG_INFINITY, n - 1, n - 1)] {
            let mut a = definite::<f64>(&mut random, 20, n, 10.0);
            a[18][(i, j)] = value;
            for par in isas() {
                let (out, result) = invert::<f64>(&a, n, Dampings::Same(1.0), ROWS, par);
                let failures = vec![(18, Error::NotFinite { argument: "a", index: vec![i, j] })];
                assert_eq!(result, Err(Error::Items { failures }), "{par:?} n = {n}");
                assert!(out.elements()[18 * n * n..][..n * n].iter().all(|v| v.is_nan()), "untouched");
                assert!(out.elements()[..18 * n * n].iter().all(|v| v.is_finite()), "written");
            }
        }
    }
}

/// Scales by powers of four are exact, to where the inverse leaves the normal numbers; beyond, a lane's pivots are denormal or overflow.
#[test]
fn scaling_by_powers_of_four_is_exact() {
    let mut random = Random::new(38);
    for n in [1, 6, 20] {
        let a = definite::<f32>(&mut random, 17, n, 4.0);
        for par in isas() {
            let (expected, _) = invert::<f32>(&a, n, Dampings::Same(0.5), ROWS, par);
            for power in [-50, -20, 3, 50] {
                let scale = f64::from(2 * power).exp2();
                let scaled: Vec<Dense> = a.iter().map(|a| a.scaled(scale)).collect();
                let (out, result) = invert::<f32>(&scaled, n, Dampings::Same(0.5 * scale as f32), ROWS, par);
                result.expect("positive definite");
                for index in 0..17 {
                    let what = format!("{par:?} n = {n}, 4^{power}");
                    assert_exact(&matrix(&out, index).scaled(scale), &matrix(&expected, index), &what);
                }
            }
        }
    }
}

/// Success and failure where Theorem 10.7 decides them, side by side in one batch; `n + 5` roundings as in the residuals' bound.
#[test]
fn definiteness_is_decided_as_the_theorem_says() {
    let mut random = Random::new(40);
    let least = [-0.1, -1e-2, -1e-4, 0.0, 1e-4, 1e-2, 0.1];
    let (mut succeeded, mut failed) = (0, 0);
    for n in [2, 7, 16, 33] {
        let a: Vec<Dense> = (0..21)
            .map(|index| {
                let mut spectrum = vec![1.0; n];
                spectrum[0] = least[index % least.len()];
                random.symmetric(&spectrum).rounded::<f32>()
            })
            .collect();
        let outcomes = a.iter().map(|a| bounds::cholesky_outcome_of(Format::of::<f32>(), a, n + 5));
        let outcomes: Vec<Outcome> = outcomes.collect();
        for par in isas() {
            let (out, result) = invert::<f32>(&a, n, Dampings::Same(0.0), ROWS, par);
            let bad: Vec<usize> = match result {
                Err(Error::Items { failures }) => failures.into_iter().map(|(index, _)| index).collect(),
                other => panic!("{par:?} n = {n}: some are indefinite: {other:?}"),
            };
            for (index, &outcome) in outcomes.iter().enumerate() {
                let (what, fails) = (format!("{par:?} n = {n}, matrix {index}"), bad.contains(&index));
                outcome.assert_allows(fails, &what);
                let written = matrix(&out, index).data.iter().all(|v| !v.is_nan());
                assert_eq!(written, !fails, "{what}: written if and only if it succeeds");
                succeeded += usize::from(outcome == Outcome::Succeeds);
                failed += usize::from(outcome == Outcome::Fails);
            }
        }
    }
    assert!(succeeded > 0 && failed > 0, "both cases occur");
}

/// Subnormal matrices: the pivots are exact there, their roots normal, and what overflows is the inverse.
#[test]
fn subnormal_pivots_are_roots_of_normal_numbers() {
    let tiny = f32::MIN_POSITIVE / 4.0;
    for n in [1, 5, 18] {
        let a = vec![Dense::identity(n).scaled(f64::from(tiny)); 3];
        for par in isas() {
            let (out, result) = invert::<f32>(&a, n, Dampings::Same(0.0), ROWS, par);
            result.expect("positive definite");
            for index in 0..3 {
                // 4^64: larger than any number.
                let got = matrix(&out, index);
                assert!((0..n).all(|i| got[(i, i)] == f64::INFINITY), "{par:?} n = {n}: {:?}", got.diag());
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let mut random = Random::new(39);
    for (batch, n) in [(600, 9), (70, 40), (9, 130)] {
        let a = definite::<f32>(&mut random, batch, n, 10.0);
        for_every_par(&format!("n = {n}"), |par| invert::<f32>(&a, n, Dampings::Same(0.5), ROWS, par).0.elements());
    }
}

#[test]
fn a_list_of_separate_matrices_gives_the_bits_of_a_batch() {
    let mut random = Random::new(40);
    for n in [7, 32, 130] {
        let a = definite::<f32>(&mut random, 21, n, 10.0);
        for par in isas() {
            let (expected, _) = invert::<f32>(&a, n, Dampings::Same(0.5), ROWS, par);
            let inputs: Vec<Buffer<f32, 2>> = a.iter().map(|a| Buffer::matrix(a, Layout::RowMajor)).collect();
            let mut outputs: Vec<Buffer<f32, 2>> =
                (0..21).map(|_| Buffer::poisoned([n, n], Layout::RowMajor)).collect();
            let pairs = inputs.iter().zip(&mut outputs);
            let mut items: Vec<Item<'_, f32>> =
                pairs.map(|(a, out)| Item { out: out.view_mut(), a: a.view(), scale: 1.0, damping: 0.5 }).collect();
            let mut memory = MemBuffer::new(damped_inverse_scratch::<f32>([21, n], par));
            damped_inverse_list(&mut items, Triangle::Full, par, MemStack::new(&mut memory)).expect("definite");
            let got: Vec<f32> = outputs.iter().flat_map(|out| out.elements()).collect();
            assert_same_bits(&got, &expected.elements(), &format!("{par:?} n = {n}"));
        }
    }
}

/// `|B - A X| <= gamma |L||L^T||X|` with `3 n + 1` terms (Theorem 10.4), one more in each sweep for the reciprocal and one for products without an FMA, and two
/// that form `A + lambda I`; `|L||L^T|` has at most the norm `tr(A) / (1 - gamma)`.
fn solves_within_bound<T: Element>() {
    let mut random = Random::new(41);
    let format = Format::of::<T>();
    for n in [1, 2, 4, 9, 16, 31, 64, 128, 130] {
        for cols in [1, 4, 7, 33] {
            let batch = if n > 40 { 3 } else { 18 };
            let a = definite::<T>(&mut random, batch, n, 50.0);
            let b: Vec<Dense> = (0..batch).map(|_| random.normals(n, cols).rounded::<T>()).collect();
            for par in isas() {
                for layout in [Layout::RowMajor, Layout::ColumnMajor, Layout::Scattered] {
                    let (from, right) =
                        (embed::<T>(&a, [batch, n, n], layout), embed::<T>(&b, [batch, n, cols], layout));
                    let mut out = Buffer::<T, 3>::poisoned([batch, n, cols], layout);
                    let damping = Dampings::Same(T::from_f64(0.25));
                    batched_solve_alloc(out.view_mut(), from.view(), right.view(), T::one(), damping, par)
                        .expect("definite");
                    out.assert_margins_intact("batched_solve");
                    let values: Vec<f64> = out.elements().iter().map(|&v| Element::to_f64(v)).collect();
                    for (index, a) in a.iter().enumerate() {
                        let x = Dense::from_slice(n, cols, &values[index * n * cols..][..n * cols]);
                        let damped = a.damped(0.25);
                        let gamma = format.gamma(3 * n + 9) + F64.gamma(n + 1);
                        let bound = gamma / (1.0 - gamma) * damped.trace() * x.frobenius()
                            + F64.gamma(n + 1) * b[index].frobenius();
                        let residual = damped.matmul(&x).minus(&b[index]).frobenius();
                        assert!(
                            residual <= bound,
                            "{par:?} n = {n} cols = {cols} {layout:?}: {residual:e}, bound {bound:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn solves_have_small_residuals() {
    solves_within_bound::<f32>();
    solves_within_bound::<f64>();
}

#[test]
fn bad_arguments_are_named_and_outputs_untouched() {
    let a = vec![1.0f32; 2 * 3 * 3];
    let mut out = vec![7.0f32; 2 * 3 * 3];
    let mut call = |out_shape: [usize; 3], a_shape: [usize; 3], scale, damping: Dampings<'_, f32>| {
        let (view, from) = (ViewMut::new(&mut out, out_shape).expect("fits"), View::new(&a, a_shape).expect("fits"));
        let error =
            batched_damped_inverse_alloc(view, from, scale, damping, Triangle::Full, Par::seq()).expect_err("bad");
        assert!(out.iter().all(|&v| v == 7.0), "untouched");
        error.to_string()
    };
    let same = Dampings::Same(1.0);
    assert_eq!(call([2, 3, 3], [2, 3, 2], 1.0, same), "a: expected shape [2, 3, 3], got [2, 3, 2]");
    assert_eq!(call([1, 3, 3], [2, 3, 3], 1.0, same), "out: expected shape [2, 3, 3], got [1, 3, 3]");
    assert_eq!(call([2, 3, 3], [2, 3, 3], -1.0, same), "scale = -1: expected a positive finite number");
    let expected = "expected a finite number, not negative";
    assert_eq!(call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Same(-0.5)), format!("damping = -0.5: {expected}"));
    assert_eq!(
        call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Each(&[1.0, f32::NAN])),
        format!("damping[1] = NaN: {expected}")
    );
    assert_eq!(call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Each(&[1.0])), "damping: expected shape [2], got [1]");
    let (view, from) = (ViewMut::new(&mut out, [2, 3, 3]).expect("fits"), View::new(&a, [2, 3, 3]).expect("fits"));
    let mut memory = MemBuffer::new(foof::StackReq::new::<u8>(16));
    let error = batched_damped_inverse(view, from, 1.0, same, Triangle::Full, Par::seq(), MemStack::new(&mut memory));
    let needed = batched_damped_inverse_scratch::<f32>([2, 3], Par::seq()).unaligned_bytes_required();
    assert!(matches!(error, Err(Error::Scratch { needed: n, .. }) if n == needed), "{error:?}");
    let (b, mut x) = (vec![1.0f32; 2 * 4], vec![7.0f32; 2 * 4]);
    let (from, right) = (View::new(&a, [2, 3, 3]).expect("fits"), View::new(&b, [2, 4, 1]).expect("fits"));
    let view = ViewMut::new(&mut x, [2, 4, 1]).expect("fits");
    let error = batched_solve_alloc(view, from, right, 1.0, same, Par::seq()).expect_err("bad");
    assert_eq!(error.to_string(), "b: expected shape [2, 3, 1], got [2, 4, 1]");
}
