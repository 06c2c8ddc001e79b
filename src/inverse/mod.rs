//! Damped inverses `(s A + lambda I)^-1` and solves, by Cholesky.

mod batched;

pub use batched::{
    batched_damped_inverse, batched_damped_inverse_alloc, batched_damped_inverse_scratch, batched_solve,
    batched_solve_alloc, batched_solve_scratch,
};
pub use foof_kernels::batched::Damping;

use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::cholesky as kernel;

/// On which side of the unknown the matrix stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `(L L^T) X = B`
    Left,
    /// `X (L L^T) = B`
    Right,
}

fn check<T: Element>(out: [usize; 2], a: MatRef<'_, T>, scale: T, damping: T) -> Result<(), Error> {
    let n = a.rows();
    check_shape("a", &[n, n], &a.shape())?;
    check_shape("out", &[n, n], &out)?;
    check_parameter("scale", scale.to_f64(), scale > T::zero() && scale.is_finite(), "a positive finite number")?;
    let valid = damping >= T::zero() && damping.is_finite();
    check_parameter("damping", damping.to_f64(), valid, "a finite number, not negative")
}

/// The lower triangle of `L` with `scale A + damping I = L L^T`, for symmetric `a` `[n, n]`, of which the lower triangle is read;
/// entries above the diagonal of `out` are not touched. `damping = 0` is allowed. `n³ / 6` multiply-adds.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::Scratch`] with `out` as it was; [`Error::NotPositiveDefinite`] with an unfinished
/// factor in `out`.
pub fn damped_cholesky<T: Element>(
    out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check(out.shape(), a, scale, damping)?;
    check_scratch(stack, damped_cholesky_scratch::<T>(a.rows(), par))?;
    kernel::damped_cholesky(out, a, scale, damping, par, stack).map_err(Error::pivot)
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
    damping: T,
    par: Par,
) -> Result<(), Error> {
    let req = damped_cholesky_scratch::<T>(a.rows(), par);
    with_scratch(req, |stack| damped_cholesky(out, a, scale, damping, par, stack))
}

/// `(scale A + damping I)^-1` for symmetric `a` `[n, n]`, of which the lower triangle is read. `damping = 0` is allowed. `n³ / 2`
/// multiply-adds.
///
/// # Errors
/// As [`damped_cholesky`].
pub fn damped_inverse<T: Element>(
    out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check(out.shape(), a, scale, damping)?;
    check_scratch(stack, damped_inverse_scratch::<T>(a.rows(), par))?;
    kernel::damped_inverse(out, a, scale, damping, triangle, par, stack).map_err(Error::pivot)
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
    damping: T,
    triangle: Triangle,
    par: Par,
) -> Result<(), Error> {
    let req = damped_inverse_scratch::<T>(a.rows(), par);
    with_scratch(req, |stack| damped_inverse(out, a, scale, damping, triangle, par, stack))
}

/// [`damped_inverse`] with the smallest damping of `damping * 10^k`, `k = 0, 1, ..`, that succeeds, which is returned. `damping` must
/// be positive.
///
/// # Errors
/// As [`damped_cholesky`]; [`Error::NotPositiveDefinite`] if no finite damping succeeds.
pub fn damped_inverse_raised<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    check_parameter("damping", damping.to_f64(), damping > T::zero(), "a positive finite number")?;
    let mut raised = damping;
    loop {
        match damped_inverse(out.rb_mut(), a, scale, raised, triangle, par, stack) {
            Ok(()) => return Ok(raised),
            Err(Error::NotPositiveDefinite { .. }) if (raised * T::from_f64(10.0)).is_finite() => {
                raised *= T::from_f64(10.0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Overwrites `b` with the solution of `(L L^T) X = B` (`b` `[n, cols]`) or `X (L L^T) = B` (`b` `[rows, n]`), for the factor `l` of
/// [`damped_cholesky`], of which the lower triangle is read. `n² cols` multiply-adds.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`], `b` as it was.
pub fn solve<T: Element>(
    l: MatRef<'_, T>,
    b: MatMut<'_, T>,
    side: Side,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let n = l.rows();
    check_shape("l", &[n, n], &l.shape())?;
    let b = if side == Side::Left { b } else { b.transpose() };
    let cols = b.cols();
    check_shape("b", &[n, cols], &b.shape())?;
    check_scratch(stack, solve_scratch::<T>(n, cols, par))?;
    kernel::solve_left(l, b, par, stack);
    Ok(())
}

/// Scratch of [`solve`] with `cols` right-hand sides (for [`Side::Right`], rows).
pub fn solve_scratch<T: Element>(n: usize, cols: usize, par: Par) -> StackReq {
    kernel::solve_scratch::<T>(n, cols, par)
}

/// [`solve`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], `b` as it was.
pub fn solve_alloc<T: Element>(l: MatRef<'_, T>, b: MatMut<'_, T>, side: Side, par: Par) -> Result<(), Error> {
    let cols = if side == Side::Left { b.cols() } else { b.rows() };
    with_scratch(solve_scratch::<T>(l.rows(), cols, par), |stack| solve(l, b, side, par, stack))
}

/// `x^T (L L^T)^-1 x = |L^-1 x|²` for `x` of `n` values.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`].
pub fn inverse_quadratic_form<T: Element>(
    l: MatRef<'_, T>,
    x: &[T],
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let n = l.rows();
    check_shape("l", &[n, n], &l.shape())?;
    check_shape("x", &[n], &[x.len()])?;
    check_scratch(stack, inverse_quadratic_form_scratch::<T>(n, par))?;
    let (mut y, stack) = temporary::<T>(stack, n);
    y.copy_from_slice(x);
    kernel::solve_lower(l, MatMut::new(&mut y, [n, 1])?, par, stack);
    Ok(y.iter().map(|&v| v * v).sum())
}

/// Scratch of [`inverse_quadratic_form`].
pub fn inverse_quadratic_form_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    temporary_scratch::<T>(n).and(kernel::solve_scratch::<T>(n, 1, par))
}
