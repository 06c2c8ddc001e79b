//! How far inverses are from the exact ones.

use crate::{How, definite, edges, invert, matrix, rungs, stream};
use foof::Element;
use foof_emulation::for_every_order;
use foof_kernels::batched::Dampings;
use foof_oracle::bounds::{self, F64, Format, Outcome};
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::{Dense, Random};

/// As on the CPU: one chain of at most `n` terms and a pivot in each sweep, and what forms `A + lambda I`; `sweep(n)` covers them.
fn residuals_within_bound<T: Element>(orders: impl Iterator<Item = usize>, condition: f64) {
    let stream = stream!();
    let mut random = Random::new(31);
    let format = Format::of::<T>();
    for n in orders {
        let batch = if n > 40 { 2 } else { 5 };
        let a = definite::<T>(&mut random, batch, n, condition);
        let dampings: Vec<f64> = (0..batch).map(|b| 0.125 + b as f64 / 8.0).collect();
        let each: Vec<T> = dampings.iter().map(|&d| T::from_f64(d)).collect();
        for rung in rungs::<T>(n, &stream) {
            let (out, failures) = invert::<T>(rung, &a, n, How::damped(Dampings::Each(&each)), &stream);
            assert_eq!(failures, [], "{rung:?} n = {n}: positive definite");
            for (index, a) in a.iter().enumerate() {
                let (damped, x) = (a.damped(dampings[index]), matrix(&out, index));
                let traces = (damped.trace(), damped.inverse().trace());
                let bound = bounds::inverse_residual(format, traces.0, traces.1, bounds::sweep(n))
                    + F64.gamma(n) * traces.0 * traces.1;
                assert!(bound < 1.0, "n = {n}: the bound says nothing: {bound:e}");
                let residual = damped.matmul(&x).minus(&Dense::identity(n)).frobenius();
                assert!(residual <= bound, "{rung:?} n = {n}, matrix {index}: {residual:e}, bound {bound:e}");
                assert!(x.is_symmetric(), "{rung:?} n = {n}: symmetric to the bit");
            }
        }
    }
}

#[test]
fn inverses_have_small_residuals() {
    // Beyond, the bound of f32 says nothing: there are integers, and the bits of the rungs.
    residuals_within_bound::<f32>((1..=40).chain(edges::<f32>().filter(|&n| (41..=65).contains(&n))), 4.0);
    residuals_within_bound::<f64>((1..=40).chain(edges::<f64>().filter(|&n| n > 40)), 100.0);
    residuals_within_bound::<f64>([2, 17, 64, 200].into_iter(), 1e6);
}

/// `A = L L^T` with a bidiagonal `L` of ones, and its inverse, all integers and found exactly by any order of sums.
fn integer_pair(random: &mut Random, n: usize) -> (Dense, Dense) {
    let l = Dense::from_fn(n, n, |i, j| match i.wrapping_sub(j) {
        0 => 1.0,
        1 => random.integer(1),
        _ => 0.0,
    });
    // Y L = I, row by row.
    let mut y = Dense::identity(n);
    for i in 0..n {
        for j in (0..i).rev() {
            y[(i, j)] = -y[(i, j + 1)] * l[(j + 1, j)];
        }
    }
    (l.matmul(&l.transpose()), y.transpose().matmul(&y))
}

fn integers_are_exact<T: Element>(orders: impl Iterator<Item = usize>) {
    let stream = stream!();
    let mut random = Random::new(32);
    for n in orders {
        let (a, expected) = integer_pair(&mut random, n);
        for rung in rungs::<T>(n, &stream) {
            let batch = [a.clone(), Dense::identity(n), a.clone()];
            let (out, failures) = invert::<T>(rung, &batch, n, How::same(0.0), &stream);
            assert_eq!(failures, [], "{rung:?} n = {n}: positive definite");
            for (index, expected) in [&expected, &Dense::identity(n), &expected].into_iter().enumerate() {
                assert_exact(&matrix(&out, index), expected, &format!("{rung:?} n = {n}, matrix {index}"));
            }
        }
    }
}

#[test]
fn integer_inverses_are_exact() {
    integers_are_exact::<f32>((0..=70).chain(edges::<f32>().filter(|&n| n > 70)).chain([200]));
    integers_are_exact::<f64>((0..=35).chain(edges::<f64>().filter(|&n| n > 35)));
}

#[test]
fn the_largest_matrices_that_fit_are_inverted() {
    let stream = stream!();
    let shared = stream.device().shared_memory();
    let block = foof_cuda::inverse::Rung::Block;
    integers_are_exact::<f32>([block.largest::<f32>(shared)].into_iter());
    integers_are_exact::<f64>([block.largest::<f64>(shared)].into_iter());
}

/// The plain rung and the fast one sum in one order: their bits are the same, as are those of every order of threads.
#[test]
fn rungs_and_orders_of_threads_change_no_bit() {
    fn check<T: Element>(orders: &[usize], bits: impl Fn(T) -> u64 + Copy) {
        let mut random = Random::new(39);
        for &n in orders {
            let a = definite::<T>(&mut random, 9, n, 10.0);
            let stream = stream!();
            let all = rungs::<T>(n, &stream).map(|rung| {
                let invert = |stream: &_| invert::<T>(rung, &a, n, How::same(0.5), stream).0.elements();
                for_every_order(&format!("{rung:?} n = {n}"), bits, invert)
            });
            let all: Vec<Vec<T>> = all.flatten().collect();
            all.iter().for_each(|other| assert_same_bits(other, &all[0], &format!("n = {n}: the rungs")));
        }
    }
    check::<f32>(&[1, 5, 16, 17, 31, 33, 64, 70, 130], |v| u64::from(v.to_bits()));
    check::<f64>(&[1, 4, 15, 20, 32, 40, 100], f64::to_bits);
}

/// A matrix's inverse does not depend on where in which batch it stands: every batch size, blocks with matrices past the end included.
#[test]
fn every_batch_size_gives_each_matrix_its_own_inverse() {
    let stream = stream!();
    let mut random = Random::new(33);
    for n in [1, 4, 5, 16, 19, 32, 33] {
        let a = definite::<f32>(&mut random, 20, n, 10.0);
        for rung in rungs::<f32>(n, &stream) {
            let (whole, failures) = invert::<f32>(rung, &a, n, How::same(0.5), &stream);
            assert_eq!(failures, [], "positive definite");
            for batch in (0..=10).chain([17, 20]) {
                let (out, failures) = invert::<f32>(rung, &a[20 - batch..], n, How::same(0.5), &stream);
                assert_eq!(failures, [], "positive definite");
                let expected = &whole.elements()[(20 - batch) * n * n..];
                assert_same_bits(&out.elements(), expected, &format!("{rung:?} n = {n}, {batch} matrices"));
            }
        }
    }
}

/// Scales by powers of four are exact, to where the inverse leaves the normal numbers; and so is `scale` by powers of two.
#[test]
fn scaling_by_powers_of_four_is_exact() {
    let stream = stream!();
    let mut random = Random::new(38);
    for n in [1, 6, 20, 40] {
        let a = definite::<f32>(&mut random, 5, n, 4.0);
        for rung in rungs::<f32>(n, &stream) {
            let (expected, _) = invert::<f32>(rung, &a, n, How::same(0.5), &stream);
            for power in [-50, -20, 3, 50] {
                let scale = f64::from(2 * power).exp2();
                let scaled: Vec<Dense> = a.iter().map(|a| a.scaled(scale)).collect();
                let by_argument = How { scale: scale as f32, ..How::same(0.5 * scale) };
                for (a, how) in [(&scaled, How::same(0.5 * scale)), (&a, by_argument)] {
                    let (out, failures) = invert::<f32>(rung, a, n, how, &stream);
                    assert_eq!(failures, [], "positive definite");
                    for index in 0..a.len() {
                        let what = format!("{rung:?} n = {n}, 4^{power}");
                        assert_exact(&matrix(&out, index).scaled(scale), &matrix(&expected, index), &what);
                    }
                }
            }
        }
    }
}

/// Success and failure where Theorem 10.7 decides them, side by side in one batch; `n + 5` roundings as in the residuals' bound.
#[test]
fn definiteness_is_decided_as_the_theorem_says() {
    let stream = stream!();
    let mut random = Random::new(40);
    let least = [-0.1, -1e-2, -1e-4, 0.0, 1e-4, 1e-2, 0.1];
    let (mut succeeded, mut failed) = (0, 0);
    for n in [2, 7, 16, 33, 65] {
        let a: Vec<Dense> = (0..14)
            .map(|index| {
                let mut spectrum = vec![1.0; n];
                spectrum[0] = least[index % least.len()];
                random.symmetric(&spectrum).rounded::<f32>()
            })
            .collect();
        let outcomes = a.iter().map(|a| bounds::cholesky_outcome_of(Format::of::<f32>(), a, n + 5));
        let outcomes: Vec<Outcome> = outcomes.collect();
        for rung in rungs::<f32>(n, &stream) {
            let (out, failures) = invert::<f32>(rung, &a, n, How::same(0.0), &stream);
            for (index, &outcome) in outcomes.iter().enumerate() {
                let what = format!("{rung:?} n = {n}, matrix {index}");
                let fails = failures.iter().any(|&(failed, _)| failed == index);
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
    let stream = stream!();
    let tiny = f32::MIN_POSITIVE / 4.0;
    for n in [1, 5, 18, 40] {
        let a = vec![Dense::identity(n).scaled(f64::from(tiny)); 3];
        for rung in rungs::<f32>(n, &stream) {
            let (out, failures) = invert::<f32>(rung, &a, n, How::same(0.0), &stream);
            assert_eq!(failures, [], "positive definite");
            for index in 0..3 {
                // 4^64: larger than any number.
                let got = matrix(&out, index);
                assert!((0..n).all(|i| got[(i, i)] == f64::INFINITY), "{rung:?} n = {n}: {:?}", got.diag());
            }
        }
    }
}
