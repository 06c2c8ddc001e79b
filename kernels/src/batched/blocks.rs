//! Triangles in blocks of [`B`] x [`B`], each entry a vector of lanes, and the product of blocks that every sweep is made of.
//!
//! ```text
//! block (I, J), I >= J:  at (I (I + 1) / 2 + J) B B vectors, column by column:  [b00 b10 b20 b30] [b01 b11 ..] ..
//! ```
//!
//! So a row of blocks is one stretch of memory, as `potrf` reads it, and a block one stretch of a kilobyte or less, as the others do.

use super::lanes::Layout;
use crate::simd::Simd;
use num_traits::Float;

/// Side of a block.
pub(crate) const B: usize = 4;

/// The lower triangle by blocks.
#[derive(Clone, Copy)]
pub(crate) struct Blocks;

/// First vector of block `(i, j)`.
#[inline(always)]
pub(crate) const fn block(i: usize, j: usize) -> usize {
    (i * (i + 1) / 2 + j) * B * B
}

impl Blocks {
    /// Vectors of a triangle of order `n`.
    pub(crate) const fn len(n: usize) -> usize {
        block(n.div_ceil(B), 0)
    }
}

impl Layout for Blocks {
    #[inline(always)]
    fn at(self, i: usize, j: usize) -> (usize, [usize; 2]) {
        // Of the upper triangle, the mirror image.
        let mirrored = i / B < j / B;
        let (i, j) = if mirrored { (j, i) } else { (i, j) };
        (block(i / B, j / B) + j % B * B + i % B, if mirrored { [1, B] } else { [B, 1] })
    }
}

/// How the entries of a block are indexed by a product `sum_k left(r, k) right(k, c)`: as they are, or transposed.
pub(crate) const AS_IS: usize = 0;
pub(crate) const TRANSPOSED: usize = 1;

#[inline(always)]
const fn place(i: usize, j: usize, transposed: usize) -> usize {
    if transposed == TRANSPOSED { i * B + j } else { j * B + i }
}

/// A tile of entries in registers.
pub(crate) type Tile<V, const M: usize> = [[V; B]; M];

/// `acc <- acc -/+ left right` of rows `row .. row + M` of `left`: `M B B` FMAs, `B (M + B)` loads.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; both blocks are readable.
#[inline(always)]
pub(crate) unsafe fn multiply<
    T: Float,
    S: Simd<T>,
    const M: usize,
    const L: usize,
    const R: usize,
    const MINUS: usize,
>(
    acc: &mut Tile<S::V, M>,
    row: usize,
    left: *const T,
    right: *const T,
) {
    // SAFETY: entries of the two blocks.
    unsafe {
        for k in 0..B {
            let mut rights = [S::splat(T::zero()); B];
            for (c, vector) in rights.iter_mut().enumerate() {
                *vector = S::load(right.add(place(k, c, R) * S::LANES));
            }
            for (r, sums) in acc.iter_mut().enumerate() {
                let left = S::load(left.add(place(row + r, k, L) * S::LANES));
                for (sum, &vector) in sums.iter_mut().zip(&rights) {
                    *sum = if MINUS == 1 { S::fnma(left, vector, *sum) } else { S::fma(left, vector, *sum) };
                }
            }
        }
    }
}
