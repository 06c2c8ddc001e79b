//! Matrices that fail, among neighbours that do not.

use crate::{How, definite, invert, rungs, stream};
use foof_cuda::pending::Record;
use foof_oracle::compare::assert_same_bits;
use foof_oracle::layout::poison;
use foof_oracle::{Dense, Random};

/// A negative pivot at every position, at several places of a batch: named, its output untouched, its neighbours' bits those of a batch without it.
#[test]
fn failures_are_named_and_disturb_nobody() {
    let stream = stream!();
    let mut random = Random::new(36);
    for n in [1, 2, 4, 7, 16, 17, 33, 66, 129] {
        let sound = definite::<f32>(&mut random, 11, n, 10.0);
        for rung in rungs::<f32>(n, &stream) {
            let (expected, _) = invert::<f32>(rung, &sound, n, How::same(0.0), &stream);
            // All positions of small orders, a few of large ones.
            for at in (0..n).step_by(if n > 40 { 31 } else { 1 }) {
                let bad = [(0, 0), (5, 2), (10, 1)];
                let mut a = sound.clone();
                for (index, later) in bad {
                    let pivot = (at + later) % n;
                    a[index] = Dense::from_fn(n, n, |i, j| match (i == j, i == pivot) {
                        (true, true) => -3.0,
                        (true, false) => 4.0,
                        _ => 0.0,
                    });
                }
                let (out, failures) = invert::<f32>(rung, &a, n, How::same(0.0), &stream);
                let failed = bad.map(|(index, later)| {
                    let pivot = ((at + later) % n + 1) as i32;
                    (index, Record { value: -3.0, pivot, row: -1, column: -1, reserved: 0 })
                });
                assert_eq!(failures, failed, "{rung:?} n = {n}");
                let mut wanted = expected.elements();
                for (index, _) in bad {
                    wanted[index * n * n..][..n * n].fill(poison());
                }
                assert_same_bits(&out.elements(), &wanted, &format!("{rung:?} n = {n}, pivot {at}"));
            }
        }
    }
}

/// The first of two pivots is named, with the value that the sums of the rows before it leave.
#[test]
fn the_first_pivot_is_named_with_what_is_left_of_it() {
    let stream = stream!();
    for n in [3, 16, 20, 40] {
        // L of ones below a diagonal of ones: row i of A leaves 1 at every pivot, less what is taken off the diagonal.
        let mut a = Dense::from_fn(n, n, |i, j| 1.0 + i.min(j) as f64);
        for pivot in [n - 2, n - 1] {
            a[(pivot, pivot)] -= 5.0;
        }
        for rung in rungs::<f64>(n, &stream) {
            let (_, failures) = invert::<f64>(rung, &[a.clone()], n, How::same(0.0), &stream);
            let failed = Record { value: -4.0, pivot: n as i32 - 1, row: -1, column: -1, reserved: 0 };
            assert_eq!(failures, [(0, failed)], "{rung:?} n = {n}");
        }
    }
}

#[test]
fn what_is_not_finite_is_named_by_matrix_and_entry() {
    let stream = stream!();
    let mut random = Random::new(37);
    for n in [3, 17, 34, 70] {
        for (value, i, j) in [(f64::NAN, n - 1, 0), (f64::INFINITY, 2, 1), (f64::NEG_INFINITY, n - 1, n - 1)] {
            let mut a = definite::<f64>(&mut random, 10, n, 10.0);
            a[8][(i, j)] = value;
            // Not the first.
            a[8][(n - 1, n - 1)] = f64::NAN;
            // Above the diagonal: not read.
            a[8][(0, n - 1)] = f64::NAN;
            for rung in rungs::<f64>(n, &stream) {
                let (out, failures) = invert::<f64>(rung, &a, n, How::same(1.0), &stream);
                let named: Vec<_> = failures.iter().map(|(index, r)| (*index, r.row, r.column)).collect();
                assert_eq!(named, [(8, i as i32, j as i32)], "{rung:?} n = {n}");
                let at = 8 * n * n;
                assert!(out.elements()[at..][..n * n].iter().all(|v| v.is_nan()), "untouched");
                assert!(out.elements()[..at].iter().all(|v| v.is_finite()), "written");
                assert!(out.elements()[at + n * n..].iter().all(|v| v.is_finite()), "written");
            }
        }
    }
}

/// Zero is no pivot, and neither is infinity.
#[test]
fn pivots_are_positive_and_finite() {
    let stream = stream!();
    for n in [1, 18, 40] {
        for rung in rungs::<f32>(n, &stream) {
            let zero = invert::<f32>(rung, &[Dense::zeros(n, n)], n, How::same(0.0), &stream).1;
            assert_eq!(zero, [(0, Record { value: 0.0, pivot: 1, row: -1, column: -1, reserved: 0 })], "{rung:?}");
            let large = Dense::identity(n).scaled(f64::from(f32::MAX));
            let how = How { scale: 2.0, ..How::same(0.0) };
            let overflow = invert::<f32>(rung, &[large], n, how, &stream).1;
            let failed = Record { value: f64::INFINITY, pivot: 1, row: -1, column: -1, reserved: 0 };
            assert_eq!(overflow, [(0, failed)], "{rung:?}");
        }
    }
}
