//! The leaves: blocks of at most [`LEAF`] rows and columns, copied to contiguous memory and worked on by whole rows.

use super::LEAF;
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};
use num_traits::Float;

/// A block in L1: row-major, `LEAF` wide, zero where the matrix has ended.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Block<T>(pub(crate) [[T; LEAF]; LEAF]);

/// What is done with blocks `l` (lower triangular) and `x`, of `n` rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeafOp {
    /// `x <- l^-1 x`
    Solve,
    /// `x <- l^-T x`
    SolveTransposed,
}

/// `x <- x + factor y`, rows of LEAF elements.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; LANES divides LEAF.
#[inline(always)]
unsafe fn add_row<T: Float, S: Simd<T>>(x: &mut [T; LEAF], factor: T, y: &[T; LEAF]) {
    // SAFETY: LEAF elements each.
    unsafe {
        let f = S::splat(factor);
        for v in (0..LEAF).step_by(S::LANES) {
            let at = x.as_mut_ptr().add(v);
            S::store(at, S::fma(f, S::load(y.as_ptr().add(v)), S::load(at)));
        }
    }
}

/// One leaf operation.
/// Every entry is divided by its pivot, not multiplied by a reciprocal: one rounding, as the bounds assume.
///
/// # Safety
/// As [`add_row`]; `n <= LEAF`.
#[inline(always)]
pub(crate) unsafe fn leaf<T: Float, S: Simd<T>>(op: LeafOp, n: usize, l: &Block<T>, x: &mut Block<T>) {
    let (l, x) = (&l.0, &mut x.0);
    let divide = |row: &mut [T; LEAF], pivot: T| row.iter_mut().for_each(|x| *x = *x / pivot);
    // SAFETY (all add_row): the caller's contract.
    match op {
        LeafOp::Solve => {
            for i in 0..n {
                let mut row = x[i];
                for k in 0..i {
                    // SAFETY: as above.
                    unsafe { add_row::<T, S>(&mut row, -l[i][k], &x[k]) }
                }
                divide(&mut row, l[i][i]);
                x[i] = row;
            }
        }
        LeafOp::SolveTransposed => {
            for i in (0..n).rev() {
                let mut row = x[i];
                for k in i + 1..n {
                    // SAFETY: as above.
                    unsafe { add_row::<T, S>(&mut row, -l[k][i], &x[k]) }
                }
                divide(&mut row, l[i][i]);
                x[i] = row;
            }
        }
    }
}

impl<T: Element> Block<T> {
    const ZERO: fn() -> Self = || Block([[T::zero(); LEAF]; LEAF]);

    /// Copies a block of at most LEAF x LEAF.
    fn read(a: MatRef<'_, T>, kernels: &Kernels<T>) -> Self {
        let mut block = Block::ZERO();
        let ([m, n], [rs, cs]) = (a.shape(), a.strides());
        assert!(m <= LEAF && n <= LEAF, "a leaf has at most {LEAF} rows and columns");
        let to = block.0.as_mut_ptr().cast::<T>();
        match (rs, cs) {
            // SAFETY: the kernels belong to an ISA this CPU has; m rows of n elements on both sides, padded to LEAF.
            (_, 1) => unsafe { (kernels.copy_rows)(to, LEAF, a.as_ptr(), rs, n, m) },
            // SAFETY: as above; n contiguous columns become rows.
            (1, _) => unsafe { (kernels.transpose)(to, LEAF, a.as_ptr(), cs, n, m) },
            _ => (0..m).for_each(|i| (0..n).for_each(|j| block.0[i][j] = a.at([i, j]))),
        }
        block
    }

    /// Copies back.
    fn write(&self, mut a: MatMut<'_, T>, kernels: &Kernels<T>) {
        let ([m, n], [rs, cs]) = (a.shape(), a.strides());
        assert!(m <= LEAF && n <= LEAF, "a leaf has at most {LEAF} rows and columns");
        if cs == 1 {
            for (i, row) in self.0.iter().enumerate().take(m) {
                let to = a.as_mut_ptr().wrapping_offset(i as isize * rs);
                // SAFETY: the kernels belong to an ISA this CPU has; row i of the block and of `a`, n elements.
                unsafe { (kernels.blend)(to, row.as_ptr(), n, T::one(), T::zero()) };
            }
        } else if rs == 1 && cs > 0 {
            let from = self.0.as_ptr().cast::<T>();
            // SAFETY: as above; m rows of n become contiguous columns.
            unsafe { (kernels.transpose)(a.as_mut_ptr(), cs as usize, from, LEAF as isize, m, n) };
        } else {
            (0..m).for_each(|i| (0..n).for_each(|j| a.set([i, j], self.0[i][j])));
        }
    }

    /// Zeros above the diagonal.
    fn lower(mut self) -> Self {
        self.0.iter_mut().enumerate().for_each(|(i, row)| row[i + 1..].fill(T::zero()));
        self
    }
}

/// Applies `op` with a leaf triangle to all columns of `b`, block by block.
pub(super) fn apply<T: Element>(op: LeafOp, l: MatRef<'_, T>, mut b: MatMut<'_, T>, kernels: &Kernels<T>) {
    let [n, cols] = b.shape();
    let l = Block::read(l, kernels).lower();
    for start in (0..cols).step_by(LEAF) {
        let columns = b.rb_mut().submatrix(0..n, start..cols.min(start + LEAF));
        let mut x = Block::read(columns.as_ref(), kernels);
        // SAFETY: the kernels belong to an ISA this CPU has.
        unsafe { (kernels.leaf)(op, n, &l, &mut x) };
        x.write(columns, kernels);
    }
}
