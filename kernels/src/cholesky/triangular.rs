//! Triangular sweeps: inverse, product with its transpose, solves.

use super::leaf::{self, LeafOp};
use super::{LEAF, half};
use crate::element::Element;
use crate::engine::epilogue::{Blend, StoreSymmetric, Triangle, negate};
use crate::engine::pack::Strided;
use crate::engine::{self, Engine};
use crate::par::Par;
use crate::product::{product, product_scratch};
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

/// `out <- out + alpha X X^T` on the lower triangle, `x` `[n, k]`.
pub(super) fn syrk<T: Element>(out: MatMut<'_, T>, alpha: T, x: MatRef<'_, T>, par: Par, stack: &mut MemStack) {
    assert_eq!(out.shape(), [x.rows(), x.rows()], "syrk: shapes disagree");
    let operand = Strided::rows(x);
    // SAFETY: the output has the product's shape.
    let epilogue = unsafe { StoreSymmetric::new(out, Blend::add(alpha), Triangle::Lower) };
    Engine::symmetric(&operand, &epilogue, par).run(stack);
}

pub(super) fn syrk_scratch<T: Element>(n: usize, k: usize, par: Par) -> StackReq {
    engine::scratch::<T>(n, n, k, true, par)
}

fn square<T>(l: &MatRef<'_, T>, what: &str) -> usize {
    assert_eq!(l.rows(), l.cols(), "{what}: the triangle is not square");
    l.rows()
}

/// `B <- L^-1 B` for lower triangular `l` `[n, n]`, `b` `[n, cols]`. `n² cols / 2` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_lower<T: Element>(l: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let n = square(&l, "solve_lower");
    assert_eq!(b.rows(), n, "solve_lower: rows of b");
    if n <= LEAF {
        return leaf::apply(LeafOp::Solve, l, b, T::kernels(par.isa()));
    }
    let h = half(n);
    let cols = b.cols();
    let [mut b1, _, mut b2, _] = b.split_at(h, cols);
    solve_lower(l.submatrix(0..h, 0..h), b1.rb_mut(), par, stack);
    product(b2.rb_mut(), Blend::add(-T::one()), l.submatrix(h..n, 0..h), b1.as_ref(), par, stack);
    solve_lower(l.submatrix(h..n, h..n), b2, par, stack);
}

/// `B <- L^-T B`, as [`solve_lower`].
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_lower_transposed<T: Element>(l: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let n = square(&l, "solve_lower_transposed");
    assert_eq!(b.rows(), n, "solve_lower_transposed: rows of b");
    if n <= LEAF {
        return leaf::apply(LeafOp::SolveTransposed, l, b, T::kernels(par.isa()));
    }
    let h = half(n);
    let cols = b.cols();
    let [mut b1, _, mut b2, _] = b.split_at(h, cols);
    solve_lower_transposed(l.submatrix(h..n, h..n), b2.rb_mut(), par, stack);
    product(b1.rb_mut(), Blend::add(-T::one()), l.submatrix(h..n, 0..h).transpose(), b2.as_ref(), par, stack);
    solve_lower_transposed(l.submatrix(0..h, 0..h), b1, par, stack);
}

/// `B <- (L L^T)^-1 B`. For `X (L L^T) = B` pass transposed views. `n² cols` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_left<T: Element>(l: MatRef<'_, T>, mut b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    solve_lower(l, b.rb_mut(), par, stack);
    solve_lower_transposed(l, b, par, stack);
}

/// Scratch of the solves with `cols` right-hand sides.
pub fn solve_scratch<T: Element>(n: usize, cols: usize, par: Par) -> StackReq {
    halvings(n, &|h, rest| product_scratch::<T>(rest, cols, h, par).or(product_scratch::<T>(h, cols, rest, par)))
}

/// The largest of `req(first half, second half)` over all blocks of a recursion on `n`.
pub(super) fn halvings(n: usize, req: &dyn Fn(usize, usize) -> StackReq) -> StackReq {
    if n <= LEAF {
        return StackReq::empty();
    }
    let h = half(n);
    req(h, n - h).or(halvings(h, req)).or(halvings(n - h, req))
}

/// `L <- L^-1` in place, lower triangle; the rest is not touched. `n³ / 6` multiply-adds.
///
/// # Panics
/// If `l` is not square, or `stack` holds less than [`trtri_scratch`].
pub fn trtri<T: Element>(l: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let n = square(&l.as_ref(), "trtri");
    if n <= LEAF {
        return leaf::trtri(l, T::kernels(par.isa()));
    }
    let [l11, _, mut l21, mut l22] = {
        let h = half(n);
        l.split_at(h, h)
    };
    // Y21 = -(Y22 L21) L11^-1: multiplied by the inverse on the left and solved on the right, which keeps |Y L - I| small (Higham,
    // section 14.2). A solve on the left would keep |L Y - I| small instead.
    trtri(l22.rb_mut(), par, stack);
    multiply(l22.as_ref(), l21.rb_mut(), par, stack);
    solve_lower_transposed_right(l11.as_ref(), l21, par, stack);
    trtri(l11, par, stack);
}

/// `B <- -B L^-1`: the transposed solve on the transposed view, negated.
fn solve_lower_transposed_right<T: Element>(l: MatRef<'_, T>, mut b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    negate(&mut b, T::kernels(par.isa()));
    solve_lower_transposed(l, b.transpose(), par, stack);
}

/// Scratch of [`trtri`].
pub fn trtri_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    halvings(n, &|h, rest| solve_scratch::<T>(rest, h, par).or(solve_scratch::<T>(h, rest, par)))
}

/// `Y <- Y^T Y` in place, lower triangle of lower triangular `y`; the rest is not touched. `n³ / 6` multiply-adds.
///
/// # Panics
/// If `y` is not square, or `stack` holds less than [`lauum_scratch`].
pub fn lauum<T: Element>(y: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let n = square(&y.as_ref(), "lauum");
    if n <= LEAF {
        return leaf::lauum(y, T::kernels(par.isa()));
    }
    let [mut y11, _, mut y21, y22] = {
        let h = half(n);
        y.split_at(h, h)
    };
    lauum(y11.rb_mut(), par, stack);
    syrk(y11, T::one(), y21.as_ref().transpose(), par, stack);
    multiply_transposed(y22.as_ref(), y21.rb_mut(), par, stack);
    lauum(y22, par, stack);
}

/// `B <- Y B` in place for lower triangular `y`.
fn multiply<T: Element>(y: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let (n, cols) = (y.rows(), b.cols());
    if n <= LEAF {
        return leaf::apply(LeafOp::Multiply, y, b, T::kernels(par.isa()));
    }
    let h = half(n);
    let [b1, _, mut b2, _] = b.split_at(h, cols);
    multiply(y.submatrix(h..n, h..n), b2.rb_mut(), par, stack);
    product(b2, Blend::add(T::one()), y.submatrix(h..n, 0..h), b1.as_ref(), par, stack);
    multiply(y.submatrix(0..h, 0..h), b1, par, stack);
}

/// `B <- Y^T B` in place for lower triangular `y`.
fn multiply_transposed<T: Element>(y: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let (n, cols) = (y.rows(), b.cols());
    if n <= LEAF {
        return leaf::apply(LeafOp::MultiplyTransposed, y, b, T::kernels(par.isa()));
    }
    let h = half(n);
    let [mut b1, _, b2, _] = b.split_at(h, cols);
    multiply_transposed(y.submatrix(0..h, 0..h), b1.rb_mut(), par, stack);
    product(b1, Blend::add(T::one()), y.submatrix(h..n, 0..h).transpose(), b2.as_ref(), par, stack);
    multiply_transposed(y.submatrix(h..n, h..n), b2, par, stack);
}

/// Scratch of [`lauum`].
pub fn lauum_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    halvings(n, &|h, rest| syrk_scratch::<T>(h, rest, par).or(solve_scratch::<T>(rest, h, par)))
}
