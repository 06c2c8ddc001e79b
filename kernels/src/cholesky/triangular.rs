//! Triangular sweeps: inverse, product with its transpose, solves.

use super::leaf::{self, LeafOp};
use super::{LEAF, half};
use crate::element::Element;
use crate::engine::epilogue::{Blend, StoreSymmetric, Triangle, negate};
use crate::engine::pack::Strided;
use crate::engine::{self, Engine};
use crate::par::{Par, fork, fork_scratch};
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

/// Orders of a triangle up to which a sweep cuts its right-hand sides in two, down to [`COLUMNS`], and works on the halves in parallel:
/// the products of smaller triangles are too small to share out.
const SPLIT: usize = 256;
const COLUMNS: usize = 128;

/// Applies `op` with the triangle `l` `[n, n]` to `b` `[n, cols]`. `n² cols / 2` multiply-adds.
fn sweep<T: Element>(op: LeafOp, l: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let (n, cols) = (l.rows(), b.cols());
    assert_eq!(b.rows(), n, "{op:?}: rows of b");
    if n <= LEAF {
        return leaf::apply(op, l, b, T::kernels(par.isa()));
    }
    if splits(n, cols) {
        let [left, right, ..] = b.split_at(n, half(cols));
        let run = |b: MatMut<'_, T>, par, stack: &mut MemStack| sweep(op, l, b, par, stack);
        let req = |par| sweep_scratch::<T>(n, half(cols), par);
        return fork(par, stack, &req, |par, stack| run(left, par, stack), |par, stack| run(right, par, stack));
    }
    let h = half(n);
    let [mut b1, _, mut b2, _] = b.split_at(h, cols);
    let (l11, l21, l22) = (l.submatrix(0..h, 0..h), l.submatrix(h..n, 0..h), l.submatrix(h..n, h..n));
    match op {
        LeafOp::SolveTransposed => {
            sweep(op, l22, b2.rb_mut(), par, stack);
            product(b1.rb_mut(), Blend::add(-T::one()), l21.transpose(), b2.as_ref(), par, stack);
            sweep(op, l11, b1, par, stack);
        }
        LeafOp::Solve => {
            sweep(op, l11, b1.rb_mut(), par, stack);
            product(b2.rb_mut(), Blend::add(-T::one()), l21, b1.as_ref(), par, stack);
            sweep(op, l22, b2, par, stack);
        }
        LeafOp::Multiply => {
            sweep(op, l22, b2.rb_mut(), par, stack);
            product(b2, Blend::add(T::one()), l21, b1.as_ref(), par, stack);
            sweep(op, l11, b1, par, stack);
        }
        LeafOp::MultiplyTransposed => {
            sweep(op, l11, b1.rb_mut(), par, stack);
            product(b1, Blend::add(T::one()), l21.transpose(), b2.as_ref(), par, stack);
            sweep(op, l22, b2, par, stack);
        }
        LeafOp::Potrf => unreachable!("a factorisation has no right-hand sides"),
    }
}

/// Whether a sweep halves its right-hand sides, not its triangle: by shape alone, so that sums do not depend on threads.
fn splits(n: usize, cols: usize) -> bool {
    n <= SPLIT && cols > COLUMNS
}

/// Scratch of [`sweep`].
fn sweep_scratch<T: Element>(n: usize, cols: usize, par: Par) -> StackReq {
    if n <= LEAF {
        return StackReq::empty();
    }
    if splits(n, cols) {
        // The first half is the larger.
        return fork_scratch(par, &|par| sweep_scratch::<T>(n, half(cols), par));
    }
    let h = half(n);
    let rest = n - h;
    let products = product_scratch::<T>(rest, cols, h, par).or(product_scratch::<T>(h, cols, rest, par));
    products.or(sweep_scratch::<T>(h, cols, par)).or(sweep_scratch::<T>(rest, cols, par))
}

/// `B <- L^-1 B` for lower triangular `l` `[n, n]`, `b` `[n, cols]`. `n² cols / 2` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_lower<T: Element>(l: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    square(&l, "solve_lower");
    par.enter(|| sweep(LeafOp::Solve, l, b, par, stack));
}

/// `B <- L^-T B`, as [`solve_lower`].
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_lower_transposed<T: Element>(l: MatRef<'_, T>, b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    square(&l, "solve_lower_transposed");
    par.enter(|| sweep(LeafOp::SolveTransposed, l, b, par, stack));
}

/// `B <- (L L^T)^-1 B`. For `X (L L^T) = B` pass transposed views. `n² cols` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`solve_scratch`].
pub fn solve_left<T: Element>(l: MatRef<'_, T>, mut b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    par.enter(|| {
        solve_lower(l, b.rb_mut(), par, stack);
        solve_lower_transposed(l, b, par, stack);
    });
}

/// Scratch of the solves with `cols` right-hand sides.
pub fn solve_scratch<T: Element>(n: usize, cols: usize, par: Par) -> StackReq {
    sweep_scratch::<T>(n, cols, par)
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
    let h = half(n);
    let [l11, _, mut l21, mut l22] = l.split_at(h, h);
    // Y21 = -(Y22 L21) L11^-1: multiplied by the inverse on the left and solved on the right, which keeps |Y L - I| small (Higham,
    // section 14.2). A solve on the left would keep |L Y - I| small instead, and the inverse of l11 cannot run beside the solve.
    trtri(l22.rb_mut(), par, stack);
    sweep(LeafOp::Multiply, l22.as_ref(), l21.rb_mut(), par, stack);
    solve_lower_transposed_right(l11.as_ref(), l21, par, stack);
    trtri(l11, par, stack);
}

/// `B <- -B L^-1`: the transposed solve on the transposed view, negated.
fn solve_lower_transposed_right<T: Element>(l: MatRef<'_, T>, mut b: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    negate(&mut b, par);
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
    sweep(LeafOp::MultiplyTransposed, y22.as_ref(), y21.rb_mut(), par, stack);
    lauum(y22, par, stack);
}

/// Scratch of [`lauum`].
pub fn lauum_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    halvings(n, &|h, rest| syrk_scratch::<T>(h, rest, par).or(solve_scratch::<T>(rest, h, par)))
}
