//! Assertions that say which entry is wrong, by how much, and what was allowed.

use crate::Dense;
use num_traits::ToPrimitive;

/// Asserts `|actual - expected| <= bound` entry by entry; a NaN anywhere fails.
#[track_caller]
pub fn assert_within(actual: &Dense, expected: &Dense, bound: &Dense, what: &str) {
    let shape = (expected.rows, expected.cols);
    assert_eq!((actual.rows, actual.cols), shape, "{what}: shape");
    assert_eq!((bound.rows, bound.cols), shape, "{what}: shape of bound");
    for i in 0..shape.0 {
        for j in 0..shape.1 {
            let (got, want, allowed) = (actual[(i, j)], expected[(i, j)], bound[(i, j)]);
            let error = (got - want).abs();
            assert!(
                error <= allowed,
                "{what}: entry ({i}, {j}) of {shape:?} is {got:e}, not {want:e}: off by {error:e}, bound {allowed:e}"
            );
        }
    }
}

/// Asserts that two matrices agree bit for bit but for the sign of zero: what integer data must give.
#[track_caller]
pub fn assert_exact(actual: &Dense, expected: &Dense, what: &str) {
    assert_within(actual, expected, &Dense::zeros(expected.rows, expected.cols), what);
}

/// Asserts `|actual - expected|_F <= bound`; a NaN fails.
#[track_caller]
pub fn assert_close(actual: &Dense, expected: &Dense, bound: f64, what: &str) {
    let error = actual.minus(expected).frobenius();
    assert!(
        error <= bound,
        "{what}: off by {error:e} in Frobenius norm (of {:e}), bound {bound:e}",
        expected.frobenius()
    );
}

/// Asserts that two slices agree bit for bit, NaN payloads and signs of zero included.
#[track_caller]
pub fn assert_same_bits<T: bytemuck::Pod + ToPrimitive>(actual: &[T], expected: &[T], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (k, (got, want)) in actual.iter().zip(expected).enumerate() {
        assert!(
            bytemuck::bytes_of(got) == bytemuck::bytes_of(want),
            "{what}: element {k} is {:?}, not {:?}",
            got.to_f64(),
            want.to_f64()
        );
    }
}

/// The eigenvalues of a symmetric matrix below `-allowed`, asserted to be none: positive semidefinite up to a bound on
/// the matrix's own error in norm.
#[track_caller]
pub fn assert_positive_semidefinite(a: &Dense, allowed: f64, what: &str) {
    let least = a.symmetric_eigen().values.first().copied().unwrap_or_default();
    let allowed = allowed + crate::bounds::eigenvalue_error(a);
    assert!(least >= -allowed, "{what}: eigenvalue {least:e} is below -{allowed:e}");
}
