//! Damped factors and inverses.

use super::{Damping, check};
use crate::dense::with_scratch;
use crate::error::check_scratch;
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::cholesky as kernel;

/// The lower triangle of `L` with `scale A + damping I = L L^T`, for symmetric `a` `[n, n]`, of which the lower triangle is read;
/// entries above the diagonal of `out` are not touched. Returns the damping, which is larger than the one given only under
/// [`Indefinite::RaiseDamping`](super::Indefinite). `damping = 0` is allowed. `n³ / 6` multiply-adds.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::Scratch`] with `out` as it was; with an unfinished factor in `out`
/// [`Error::NotFinite`], which names an entry of `scale A`, or [`Error::NotPositiveDefinite`]: of the damping given, or, where it may be
/// raised, of every finite one.
pub fn damped_cholesky<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: impl Into<Damping<T>>,
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let damping = damping.into();
    check(out.shape(), a, scale, damping)?;
    check_scratch(stack, damped_cholesky_scratch::<T>(a.rows(), par))?;
    damping.attempt(a, scale, |lambda| kernel::damped_cholesky(out.rb_mut(), a, scale, lambda, par, stack))
}

/// Scratch of [`damped_cholesky`] of an `[n, n]` matrix.
pub fn damped_cholesky_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    kernel::potrf_scratch::<T>(n, par)
}

/// [`damped_cholesky`] with scratch of its own.
///
/// # Errors
/// As [`damped_cholesky`].
pub fn damped_cholesky_alloc<T: Element>(
    out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: impl Into<Damping<T>>,
    par: Par,
) -> Result<T, Error> {
    let req = damped_cholesky_scratch::<T>(a.rows(), par);
    with_scratch(req, |stack| damped_cholesky(out, a, scale, damping, par, stack))
}

/// `(scale A + damping I)^-1` for symmetric `a` `[n, n]`, of which the lower triangle is read. Returns the damping, as
/// [`damped_cholesky`]; only the factorisation is repeated for a larger one. `damping = 0` is allowed. `n³ / 2` multiply-adds.
///
/// # Errors
/// As [`damped_cholesky`], always with `out` as it was.
pub fn damped_inverse<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: impl Into<Damping<T>>,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let damping = damping.into();
    check(out.shape(), a, scale, damping)?;
    check_scratch(stack, damped_inverse_scratch::<T>(a.rows(), par))?;
    damping.attempt(a, scale, |lambda| kernel::damped_inverse(out.rb_mut(), a, scale, lambda, triangle, par, stack))
}

/// Scratch of [`damped_inverse`] of an `[n, n]` matrix.
pub fn damped_inverse_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    kernel::damped_inverse_scratch::<T>(n, par)
}

/// [`damped_inverse`] with scratch of its own.
///
/// # Errors
/// As [`damped_cholesky`].
pub fn damped_inverse_alloc<T: Element>(
    out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: impl Into<Damping<T>>,
    triangle: Triangle,
    par: Par,
) -> Result<T, Error> {
    let req = damped_inverse_scratch::<T>(a.rows(), par);
    with_scratch(req, |stack| damped_inverse(out, a, scale, damping, triangle, par, stack))
}
