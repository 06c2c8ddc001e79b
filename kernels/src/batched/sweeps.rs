//! The sweeps of a Cholesky inverse on triangles of blocks, in place and each a left-looking pass: an entry is one sum, kept in registers from
//! its first term to its last, and written once.
//!
//! ```text
//! potrf   L(I,J) = (A(I,J) - sum_{K<J} L(I,K) L(J,K)^T) L(J,J)^-T        J up, I down the column
//! trtri   Y(I,J) = -(sum_{J<K<=I} Y(I,K) L(K,J)) L(J,J)^-1               I from the last row up, J leftward
//! lauum   X(I,J) = sum_{K>=I} Y(K,I)^T Y(K,J)                            I down, J up to the diagonal
//! ```
//!
//! A diagonal entry of `L` is kept as its reciprocal, which is all that the sweeps use of it. `Y` is solved for from `Y L = I`, by rows, so that it is
//! the left residual that is small.

use super::blocks::{AS_IS, B, TRANSPOSED, Tile, block, multiply};
use super::lanes::{Ahead, MOST};
use crate::cholesky::Pivot;
use crate::simd::Simd;
use num_traits::Float;

/// The first pivot of each lane that is not positive or not finite.
#[derive(Clone, Copy)]
pub(crate) struct Pivots<T> {
    /// A bit for each lane that has failed.
    pub(crate) failed: u32,
    /// Where and with which value.
    pub(crate) pivots: [Pivot<T>; MOST],
}

impl<T: Float> Pivots<T> {
    pub(crate) fn none() -> Self {
        Pivots { failed: 0, pivots: [Pivot { index: 0, value: T::zero() }; MOST] }
    }

    #[cold]
    fn add(&mut self, lanes: u32, index: usize, values: &[T; MOST]) {
        for lane in (0..MOST).filter(|lane| lanes & !self.failed & (1 << lane) != 0) {
            self.pivots[lane] = Pivot { index, value: values[lane] };
        }
        self.failed |= lanes;
    }
}

/// # Safety
/// As [`multiply`]: the block is readable.
#[inline(always)]
unsafe fn load<T: Float, S: Simd<T>, const M: usize>(from: *const T, row: usize) -> Tile<S::V, M> {
    // SAFETY: entries of the block.
    unsafe {
        let mut tile = [[S::splat(T::zero()); B]; M];
        for (r, entries) in tile.iter_mut().enumerate() {
            for (c, entry) in entries.iter_mut().enumerate() {
                *entry = S::load(from.add((c * B + row + r) * S::LANES));
            }
        }
        tile
    }
}

/// # Safety
/// As [`multiply`]: the block is writable.
#[inline(always)]
unsafe fn store<T: Float, S: Simd<T>, const M: usize>(to: *mut T, row: usize, tile: &Tile<S::V, M>) {
    // SAFETY: entries of the block.
    unsafe {
        for (r, entries) in tile.iter().enumerate() {
            for (c, &entry) in entries.iter().enumerate() {
                S::store(to.add((c * B + row + r) * S::LANES), entry);
            }
        }
    }
}

/// `A = L L^T` of `n` rows, a multiple of [`B`]. A lane that fails goes on with numbers that mean nothing.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: each of `a` holds the blocks of a triangle.
#[inline(always)]
pub(crate) unsafe fn potrf<T: Float, S: Simd<T>, const M: usize, const G: usize>(
    n: usize,
    a: [*mut T; G],
    ahead: &mut [Ahead<T>; G],
    mut pivots: [&mut Pivots<T>; G],
) {
    // SAFETY: blocks of the triangles.
    unsafe {
        pivots.iter_mut().for_each(|pivots| pivots.failed = 0);
        for j in 0..n / B {
            let diagonal = a.map(|a| a.add(block(j, j) * S::LANES));
            for i in j..n / B {
                for g in 0..G {
                    ahead[g].step();
                    let at = |i: usize, j: usize| a[g].add(block(i, j) * S::LANES);
                    let target = at(i, j);
                    for row in (0..B).step_by(M) {
                        let mut tile = load::<T, S, M>(target, row);
                        let (mut left, mut right) = (at(i, 0), at(j, 0));
                        for _ in 0..j {
                            multiply::<T, S, M, AS_IS, TRANSPOSED, 1>(&mut tile, row, left, right);
                            left = left.add(B * B * S::LANES);
                            right = right.add(B * B * S::LANES);
                        }
                        if i > j {
                            solve_right_transposed::<T, S, M>(&mut tile, diagonal[g]);
                        }
                        store::<T, S, M>(target, row, &tile);
                    }
                }
                if i == j {
                    factor_blocks::<T, S, G>(diagonal, j * B, &mut pivots);
                }
            }
        }
    }
}

/// The factors of diagonal blocks: reciprocals on their diagonals, zeros above them. A pivot waits for the one before it; those of several
/// triangles do so together.
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
unsafe fn factor_blocks<T: Float, S: Simd<T>, const G: usize>(
    at: [*mut T; G],
    first: usize,
    pivots: &mut [&mut Pivots<T>; G],
) {
    // SAFETY: entries of the blocks.
    unsafe {
        let zero = S::splat(T::zero());
        let mut blocks = [[[zero; B]; B]; G];
        for g in 0..G {
            blocks[g] = load::<T, S, B>(at[g], 0);
        }
        for g in 0..G {
            factor_column::<T, S, 0>(&mut blocks[g], first, pivots[g]);
        }
        for g in 0..G {
            factor_column::<T, S, 1>(&mut blocks[g], first, pivots[g]);
        }
        for g in 0..G {
            factor_column::<T, S, 2>(&mut blocks[g], first, pivots[g]);
        }
        for g in 0..G {
            factor_column::<T, S, 3>(&mut blocks[g], first, pivots[g]);
        }
        for g in 0..G {
            store::<T, S, B>(at[g], 0, &blocks[g]);
        }
    }
}

/// Column `J`, and what it takes from those after it. `J` is known to the compiler, so that the block stays in registers.
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
unsafe fn factor_column<T: Float, S: Simd<T>, const J: usize>(
    l: &mut Tile<S::V, B>,
    first: usize,
    pivots: &mut Pivots<T>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let (value, all) = (l[J][J], u32::MAX >> (32 - S::LANES));
        let positive = S::positive(value);
        if positive != all {
            let mut values = [T::zero(); MOST];
            S::store(values.as_mut_ptr(), value);
            pivots.add(all & !positive, first + J, &values);
        }
        let reciprocal = S::reciprocal_root(value);
        l[J][J] = reciprocal;
        for row in &mut l[J + 1..] {
            row[J] = S::mul(row[J], reciprocal);
        }
        l[J][J + 1..].fill(S::splat(T::zero()));
        for i in J + 1..B {
            for c in J + 1..=i {
                l[i][c] = S::fnma(l[i][J], l[c][J], l[i][c]);
            }
        }
    }
}

/// `tile <- tile L^-T`
///
/// # Safety
/// As [`potrf`]; `l` is a factored diagonal block.
#[inline(always)]
unsafe fn solve_right_transposed<T: Float, S: Simd<T>, const M: usize>(tile: &mut Tile<S::V, M>, l: *const T) {
    // SAFETY: entries of the block.
    unsafe {
        for c in 0..B {
            for k in 0..c {
                let factor = S::load(l.add((k * B + c) * S::LANES));
                for row in tile.iter_mut() {
                    row[c] = S::fnma(row[k], factor, row[c]);
                }
            }
            let reciprocal = S::load(l.add((c * B + c) * S::LANES));
            for row in tile.iter_mut() {
                row[c] = S::mul(row[c], reciprocal);
            }
        }
    }
}

/// `tile <- -tile L^-1`
///
/// # Safety
/// As [`solve_right_transposed`].
#[inline(always)]
unsafe fn solve_right_negated<T: Float, S: Simd<T>, const M: usize>(tile: &mut Tile<S::V, M>, l: *const T) {
    // SAFETY: entries of the block.
    unsafe {
        let zero = S::splat(T::zero());
        for c in (0..B).rev() {
            for k in c + 1..B {
                let factor = S::load(l.add((c * B + k) * S::LANES));
                for row in tile.iter_mut() {
                    row[c] = S::fma(row[k], factor, row[c]);
                }
            }
            let reciprocal = S::load(l.add((c * B + c) * S::LANES));
            for row in tile.iter_mut() {
                row[c] = S::fnma(row[c], reciprocal, zero);
            }
        }
    }
}

/// `L <- L^-1`, of [`potrf`]'s factors.
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
pub(crate) unsafe fn trtri<T: Float, S: Simd<T>, const M: usize, const G: usize>(
    n: usize,
    a: [*mut T; G],
    ahead: &mut [Ahead<T>; G],
) {
    // SAFETY: blocks of the triangles.
    unsafe {
        for i in (0..n / B).rev() {
            for a in a {
                invert_block::<T, S>(a.add(block(i, i) * S::LANES));
            }
            for j in (0..i).rev() {
                for g in 0..G {
                    ahead[g].step();
                    let at = |i: usize, j: usize| a[g].add(block(i, j) * S::LANES);
                    let target = at(i, j);
                    // Row r of Y(I,I) has no entries after r: rows of L(I,J) that are overwritten are not needed again.
                    for row in (0..B).step_by(M).rev() {
                        let mut tile = [[S::splat(T::zero()); B]; M];
                        for k in j + 1..=i {
                            multiply::<T, S, M, AS_IS, AS_IS, 0>(&mut tile, row, at(i, k), at(k, j));
                        }
                        solve_right_negated::<T, S, M>(&mut tile, at(j, j));
                        store::<T, S, M>(target, row, &tile);
                    }
                }
            }
        }
    }
}

/// The inverse of a factored diagonal block.
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
unsafe fn invert_block<T: Float, S: Simd<T>>(at: *mut T) {
    // SAFETY: entries of the block.
    unsafe {
        let l = load::<T, S, B>(at, 0);
        let mut y = l;
        invert_row::<T, S, 1>(&mut y, &l);
        invert_row::<T, S, 2>(&mut y, &l);
        invert_row::<T, S, 3>(&mut y, &l);
        store::<T, S, B>(at, 0, &y);
    }
}

/// Row `I`, known to the compiler as in [`factor_column`].
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
unsafe fn invert_row<T: Float, S: Simd<T>, const I: usize>(y: &mut Tile<S::V, B>, l: &Tile<S::V, B>) {
    // SAFETY: the caller's contract.
    unsafe {
        let zero = S::splat(T::zero());
        for j in (0..I).rev() {
            let mut sum = S::mul(y[I][I], l[I][j]);
            for k in j + 1..I {
                sum = S::fma(y[I][k], l[k][j], sum);
            }
            y[I][j] = S::fnma(sum, l[j][j], zero);
        }
    }
}

/// `Y <- Y^T Y`, the diagonal blocks full: an entry and its mirror image are the same products in the same order.
///
/// # Safety
/// As [`potrf`].
#[inline(always)]
pub(crate) unsafe fn lauum<T: Float, S: Simd<T>, const M: usize, const G: usize>(
    n: usize,
    a: [*mut T; G],
    ahead: &mut [Ahead<T>; G],
) {
    // SAFETY: blocks of the triangles.
    unsafe {
        for g in 0..G {
            let at = |i: usize, j: usize| a[g].add(block(i, j) * S::LANES);
            let blocks = n / B;
            for i in 0..blocks {
                // The diagonal block is both factors of its own product.
                let diagonal = load_columns::<T, S>(at(i, i));
                for j in 0..=i {
                    ahead[g].step();
                    let target = at(i, j);
                    let first = if i == j { diagonal.as_ptr().cast() } else { at(i, i).cast_const() };
                    // Row r of Y(I,I)^T has no entries before r: rows of Y(I,J) that are overwritten are not needed again.
                    for row in (0..B).step_by(M) {
                        let mut tile = [[S::splat(T::zero()); B]; M];
                        multiply::<T, S, M, TRANSPOSED, AS_IS, 0>(&mut tile, row, first, target);
                        for k in i + 1..blocks {
                            multiply::<T, S, M, TRANSPOSED, AS_IS, 0>(&mut tile, row, at(k, i), at(k, j));
                        }
                        store::<T, S, M>(target, row, &tile);
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn load_columns<T: Float, S: Simd<T>>(from: *const T) -> [[S::V; B]; B] {
    // SAFETY: entries of the block.
    unsafe {
        let mut columns = [[S::splat(T::zero()); B]; B];
        for (c, column) in columns.iter_mut().enumerate() {
            for (r, entry) in column.iter_mut().enumerate() {
                *entry = S::load(from.add((c * B + r) * S::LANES));
            }
        }
        columns
    }
}

/// `X <- L^-1 X` of one panel: blocks of [`B`] columns, one below the other.
///
/// # Safety
/// As [`potrf`]; `x` holds a block for each row of blocks.
#[inline(always)]
pub(crate) unsafe fn solve_lower<T: Float, S: Simd<T>, const M: usize>(n: usize, l: *const T, x: *mut T) {
    // SAFETY: blocks of the triangle and of the panel.
    unsafe {
        for i in 0..n / B {
            let target = x.add(i * B * B * S::LANES);
            for row in (0..B).step_by(M) {
                let mut tile = load::<T, S, M>(target, row);
                for k in 0..i {
                    let left = l.add(block(i, k) * S::LANES);
                    multiply::<T, S, M, AS_IS, AS_IS, 1>(&mut tile, row, left, x.add(k * B * B * S::LANES));
                }
                store::<T, S, M>(target, row, &tile);
            }
            solve_block::<T, S, AS_IS>(l.add(block(i, i) * S::LANES), target);
        }
    }
}

/// `X <- L^-T X` of one panel.
///
/// # Safety
/// As [`solve_lower`].
#[inline(always)]
pub(crate) unsafe fn solve_lower_transposed<T: Float, S: Simd<T>, const M: usize>(n: usize, l: *const T, x: *mut T) {
    // SAFETY: blocks of the triangle and of the panel.
    unsafe {
        let blocks = n / B;
        for i in (0..blocks).rev() {
            let target = x.add(i * B * B * S::LANES);
            for row in (0..B).step_by(M) {
                let mut tile = load::<T, S, M>(target, row);
                for k in i + 1..blocks {
                    let left = l.add(block(k, i) * S::LANES);
                    multiply::<T, S, M, TRANSPOSED, AS_IS, 1>(&mut tile, row, left, x.add(k * B * B * S::LANES));
                }
                store::<T, S, M>(target, row, &tile);
            }
            solve_block::<T, S, TRANSPOSED>(l.add(block(i, i) * S::LANES), target);
        }
    }
}

/// `x <- l^-1 x` or `x <- l^-T x` of one block.
///
/// # Safety
/// As [`solve_lower`].
#[inline(always)]
unsafe fn solve_block<T: Float, S: Simd<T>, const HOW: usize>(l: *const T, x: *mut T) {
    // SAFETY: entries of the blocks.
    unsafe {
        let mut tile = load::<T, S, B>(x, 0);
        for step in 0..B {
            let i = if HOW == AS_IS { step } else { B - 1 - step };
            for before in 0..step {
                let k = if HOW == AS_IS { before } else { B - 1 - before };
                let place = if HOW == AS_IS { k * B + i } else { i * B + k };
                let factor = S::load(l.add(place * S::LANES));
                let row = tile[k];
                for (entry, &other) in tile[i].iter_mut().zip(&row) {
                    *entry = S::fnma(factor, other, *entry);
                }
            }
            let reciprocal = S::load(l.add((i * B + i) * S::LANES));
            for entry in &mut tile[i] {
                *entry = S::mul(*entry, reciprocal);
            }
        }
        store::<T, S, B>(x, 0, &tile);
    }
}
