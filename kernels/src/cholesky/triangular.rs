//! Solves with a triangle, by halves: all but the leaves is products on the engine.
//!
//! ```text
//! trsm    B <- L^-1 B    B1 <- L11^-1 B1,  B2 <- B2 - L21 B1,  B2 <- L22^-1 B2
//! ```

use super::leaf::{self, LeafOp};
use super::{LEAF, half};
use crate::element::Element;
use crate::engine::epilogue::Blend;
use crate::par::{Par, fork, fork_scratch};
use crate::product::{product, product_scratch};
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

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
