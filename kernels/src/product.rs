//! Matrix products: `out <- beta out + alpha L R`.

use crate::element::{Element, Input};
use crate::engine::epilogue::{Blend, Store};
use crate::engine::pack::Strided;
use crate::engine::{self, Engine, small};
use crate::par::Par;
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

/// `out <- beta out + alpha lhs rhs`, with `lhs` `[m, k]`, `rhs` `[k, n]`, `out` `[m, n]`, any strides. `m n k` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`product_scratch`].
#[inline]
pub fn product<L: Input, R: Input<Acc = L::Acc>>(
    out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
    stack: &mut MemStack,
) {
    let (m, n, k) = (lhs.rows(), rhs.cols(), lhs.cols());
    assert!(out.rows() == m && out.cols() == n && rhs.rows() == k, "product: shapes disagree");
    if small::suits(m, n, k) {
        return small::product(out, blend, lhs, rhs, par.isa(), stack);
    }
    tiled(out, blend, lhs, rhs, par, stack);
}

/// Whether a product of this shape has kernels of its own, without plan, packing or threads.
#[inline(always)]
pub fn is_small(m: usize, n: usize, k: usize) -> bool {
    small::suits(m, n, k)
}

/// A [`product`] that [`is_small`], if the operands and the output can be used where they lie; else nothing happens, and the answer is `false`.
#[inline(always)]
pub fn product_in_place<L: Input, R: Input<Acc = L::Acc>>(
    out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
) -> bool {
    let (m, n, k) = (lhs.rows(), rhs.cols(), lhs.cols());
    assert!(out.rows() == m && out.cols() == n && rhs.rows() == k, "product: shapes disagree");
    is_small(m, n, k) && small::in_place(out, blend, lhs, rhs, par.isa())
}

/// [`product`] by the engine.
#[inline(never)]
fn tiled<L: Input, R: Input<Acc = L::Acc>>(
    out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    par: Par,
    stack: &mut MemStack,
) {
    let [row_step, col_step] = out.strides().map(isize::unsigned_abs);
    let (left, right) = (Strided::rows(lhs), Strided::columns(rhs));
    // Rows of a tile are contiguous: a column-major output is computed as its transpose.
    if row_step < col_step {
        // SAFETY: the transposed product has the transposed output's shape.
        let epilogue = unsafe { Store::new(out.transpose(), blend) };
        Engine::product(&right, &left, &epilogue, par).run(stack);
    } else {
        // SAFETY: shapes were checked.
        let epilogue = unsafe { Store::new(out, blend) };
        Engine::product(&left, &right, &epilogue, par).run(stack);
    }
}

/// Scratch of [`product`], whatever the strides.
#[inline]
pub fn product_scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    if small::suits(m, n, k) {
        return small::scratch::<T>(m, n, k);
    }
    tiled_scratch::<T>(m, n, k, par)
}

#[inline(never)]
fn tiled_scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    engine::scratch::<T>(m, n, k, false, par).or(engine::scratch::<T>(n, m, k, false, par))
}

/// The longest chain of additions into one entry of a [`product`]: `|fl(C) - C| <= gamma_depth |L||R|`.
pub fn depth<T: Element>(m: usize, n: usize, k: usize, par: Par) -> usize {
    if small::suits(m, n, k) {
        return k;
    }
    engine::depth::<T>(m, n, k, false, par).max(engine::depth::<T>(n, m, k, false, par))
}
