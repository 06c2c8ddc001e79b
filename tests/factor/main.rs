//! Damped factors and what one factor gives: success and failure, determinants, forms, estimates, certificates, lists.

mod certificate;
mod condition;
mod definite;
mod forms;
mod mixed;

use foof::inverse::{Damping, damped_cholesky_alloc, damped_inverse_alloc};
use foof::{Element, Error, Par, Triangle};
use foof_oracle::Dense;
use foof_oracle::layout::{Buffer, Layout};

/// The factor of `a + damping I`, and the damping that it took.
fn factor<T: Element>(a: &Dense, damping: impl Into<Damping<T>>, par: Par) -> Result<(Dense, T), Error> {
    let n = a.rows;
    let (a, mut l) = (Buffer::<T, 2>::matrix(a, Layout::RowMajor), Buffer::poisoned([n, n], Layout::RowMajor));
    let used = damped_cholesky_alloc(l.view_mut(), a.view(), T::one(), damping, par)?;
    l.assert_margins_intact("damped_cholesky");
    Ok((l.dense().lower(), used))
}

/// The inverse of `a + damping I`, and the damping that it took.
fn inverse<T: Element>(a: &Dense, damping: impl Into<Damping<T>>, par: Par) -> Result<(Dense, T), Error> {
    let n = a.rows;
    let (a, mut x) = (Buffer::<T, 2>::matrix(a, Layout::RowMajor), Buffer::poisoned([n, n], Layout::RowMajor));
    let used = damped_inverse_alloc(x.view_mut(), a.view(), T::one(), damping, Triangle::Full, par)?;
    x.assert_margins_intact("damped_inverse");
    Ok((x.dense(), used))
}
