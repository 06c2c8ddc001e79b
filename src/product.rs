//! Checked matrix products: `out <- beta out + alpha L R`.

use crate::dense::with_scratch;
use crate::error::{check_scratch, check_shape};
use crate::{Blend, Element, Error, Input, MatMut, MatRef, MemStack, Par, StackReq};
use foof_kernels::product as kernel;

/// `out <- beta out + alpha lhs rhs`, with `lhs` `[m, k]`, `rhs` `[k, n]`, `out` `[m, n]`, any strides; `beta = 0` does not read
/// `out`. `m n k` multiply-adds. Half-width operands are widened exactly.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
#[inline(always)]
pub fn product<L: Input, R: Input<Acc = L::Acc>>(
    mut out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let ([m, k], n) = (lhs.shape(), rhs.cols());
    // What is small, lies well and fits ends here, where the caller's compiler knows most of it. Views are passed on as copies: those of the fast way
    // stay in registers.
    let agree = rhs.rows() == k && out.rows() == m && out.cols() == n;
    if agree
        && kernel::is_small(m, n, k)
        && stack.can_hold(kernel::product_scratch::<L::Acc>(m, n, k, par))
        && kernel::product_in_place(out.rb_mut(), blend, lhs, rhs, par)
    {
        return Ok(());
    }
    checked(out.rb_mut(), blend, lhs.as_ref(), rhs.as_ref(), par, stack)
}

/// [`product`](fn@product) of any shape, which may be wrong.
#[inline(never)]
fn checked<L: Input, R: Input<Acc = L::Acc>>(
    out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let (m, k, n) = (lhs.rows(), lhs.cols(), rhs.cols());
    check_shape("rhs", &[k, n], &rhs.shape())?;
    check_shape("out", &[m, n], &out.shape())?;
    check_scratch(stack, product_scratch::<L::Acc>(m, n, k, par))?;
    kernel::product(out, blend, lhs, rhs, par, stack);
    Ok(())
}

/// Scratch of [`product`](fn@product); `T` is the type that is accumulated.
#[inline]
pub fn product_scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    kernel::product_scratch::<T>(m, n, k, par)
}

/// [`product`](fn@product) with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], `out` as it was.
pub fn product_alloc<L: Input, R: Input<Acc = L::Acc>>(
    out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
) -> Result<(), Error> {
    let req = product_scratch::<L::Acc>(lhs.rows(), rhs.cols(), lhs.cols(), par);
    with_scratch(req, |stack| product(out, blend, lhs, rhs, par, stack))
}
