//! What a factor gives without the inverse: solves, quadratic forms, the determinant.

use crate::dense::{sum_of_squares, temporary, temporary_scratch, with_scratch};
use crate::error::{check_scratch, check_shape};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use foof_kernels::cholesky as kernel;

/// On which side of the unknown the matrix stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `(L L^T) X = B`
    Left,
    /// `X (L L^T) = B`
    Right,
}

/// The order of a factor, which is square.
pub(super) fn order<T>(l: MatRef<'_, T>) -> Result<usize, Error> {
    let n = l.rows();
    check_shape("l", &[n, n], &l.shape()).map(|()| n)
}

/// Overwrites `b` with the solution of `(L L^T) X = B` (`b` `[n, cols]`) or `X (L L^T) = B` (`b` `[rows, n]`), for the factor `l` of
/// [`damped_cholesky`](super::damped_cholesky), of which the lower triangle is read. `n² cols` multiply-adds.
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
    let n = order(l)?;
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

/// `log det (L L^T) = 2 sum_i log l_ii`, from the diagonal of the factor `l` `[n, n]`; 0 for `n = 0`. No product of pivots is formed, which
/// would leave the range.
///
/// # Errors
/// [`Error::Shape`]; [`Error::NotPositiveDefinite`] for a diagonal entry that is not positive and finite: no factor has one.
pub fn log_det<T: Element>(l: MatRef<'_, T>) -> Result<T, Error> {
    let mut sum = T::zero();
    for pivot in 0..order(l)? {
        let value = l.at([pivot, pivot]);
        if !(value > T::zero() && value.is_finite()) {
            return Err(Error::NotPositiveDefinite { layer: None, pivot, value: value.to_f64() });
        }
        sum += value.ln();
    }
    Ok(sum + sum)
}

/// Vectors that are solved for at a time.
const ROWS: usize = 256;

/// `out_k = x_k^T (L L^T)^-1 x_k = |L^-1 x_k|²` for the rows `x_k` of `x` `[m, n]`, `out` of `m` values. Half a [`solve`]: `m n² / 2`
/// multiply-adds.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
pub fn inverse_quadratic_forms<T: Element>(
    out: &mut [T],
    l: MatRef<'_, T>,
    x: MatRef<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let (n, m) = (order(l)?, x.rows());
    check_shape("x", &[m, n], &x.shape())?;
    check_shape("out", &[m], &[out.len()])?;
    check_scratch(stack, inverse_quadratic_forms_scratch::<T>(n, m, par))?;
    let (mut y, stack) = temporary::<T>(stack, n * m.min(ROWS));
    for (block, out) in out.chunks_mut(ROWS).enumerate() {
        let (first, rows) = (block * ROWS, out.len());
        let y = &mut y[..rows * n];
        let mut view = MatMut::new(y, [rows, n])?;
        view.copy_from(x.row_range(first..first + rows));
        kernel::solve_lower(l, view.transpose(), par, stack);
        // Without columns there are no rows to sum.
        out.fill(T::zero());
        out.iter_mut().zip(y.chunks_exact(n.max(1))).for_each(|(out, row)| *out = sum_of_squares(row));
    }
    Ok(())
}

/// Scratch of [`inverse_quadratic_forms`] of `m` vectors.
pub fn inverse_quadratic_forms_scratch<T: Element>(n: usize, m: usize, par: Par) -> StackReq {
    let rows = [m.min(ROWS), m % ROWS];
    let solves = rows.map(|rows| kernel::solve_scratch::<T>(n, rows, par));
    temporary_scratch::<T>(n * rows[0]).and(solves[0].or(solves[1]))
}

/// [`inverse_quadratic_forms`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], `out` as it was.
pub fn inverse_quadratic_forms_alloc<T: Element>(
    out: &mut [T],
    l: MatRef<'_, T>,
    x: MatRef<'_, T>,
    par: Par,
) -> Result<(), Error> {
    let req = inverse_quadratic_forms_scratch::<T>(l.rows(), x.rows(), par);
    with_scratch(req, |stack| inverse_quadratic_forms(out, l, x, par, stack))
}

/// `x^T (L L^T)^-1 x` for one `x` of `n` values: [`inverse_quadratic_forms`] of one row.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`].
pub fn inverse_quadratic_form<T: Element>(
    l: MatRef<'_, T>,
    x: &[T],
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let mut out = [T::zero()];
    inverse_quadratic_forms(&mut out, l, MatRef::new(x, [1, x.len()])?, par, stack)?;
    Ok(out[0])
}

/// Scratch of [`inverse_quadratic_form`].
pub fn inverse_quadratic_form_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    inverse_quadratic_forms_scratch::<T>(n, 1, par)
}

/// [`inverse_quadratic_form`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`].
pub fn inverse_quadratic_form_alloc<T: Element>(l: MatRef<'_, T>, x: &[T], par: Par) -> Result<T, Error> {
    with_scratch(inverse_quadratic_form_scratch::<T>(l.rows(), par), |stack| inverse_quadratic_form(l, x, par, stack))
}
