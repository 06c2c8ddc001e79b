//! The implicit QL algorithm with Wilkinson's shift (EISPACK's `tql2`), each lane on a block of its own.
//!
//! ```text
//! until no lane has an off-diagonal entry left
//!     scan     in each lane: deflate; find the topmost unreduced block l..=m and its shift
//!     chase    rotate from the lowest m to the topmost l; outside its own block a lane's rotation is the identity
//! whenever the memory for rotations is full, and at the end
//!     apply    all of them to a few rows of the eigenvectors, which stay in L1, then to the next
//! ```

use super::room::{Room, threshold, unit};
use crate::simd::Simd;
use crate::simd::vector::Vector;
use num_traits::Float;

/// Sweeps that are recorded before they are applied.
const SWEEPS: usize = 64;

/// Rows of the eigenvectors that are rotated together.
const ROWS: usize = 8;

/// What [`scan`] finds in each lane.
struct Block<T: Float, S: Simd<T>> {
    /// First and last row; where nothing is left, `n` and 0.
    first: Vector<T, S>,
    last: Vector<T, S>,
    /// The bulge that the chase begins with.
    start: Vector<T, S>,
}

impl<T: Float, S: Simd<T>> Clone for Block<T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Float, S: Simd<T>> Copy for Block<T, S> {}

/// Sets off-diagonal entries to zero that are no larger than the rounding of their neighbours, `u (|d_i| + |d_i+1|)`, or than `u²` of the
/// matrix; finds the topmost block without a zero in it. Rows above `from` have none.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; `room` is writable.
#[inline(always)]
unsafe fn scan<T: Float, S: Simd<T>>(room: &Room<T>, from: usize) -> Block<T, S> {
    let Room { n, d, e, .. } = *room;
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let splat = |x: T| Vector::<T, S>::splat(x);
        let (zero, one, u) = (splat(T::zero()), splat(T::one()), splat(unit::<T>()));
        let floor = u * u;
        let (mut opened, mut closed) = (zero, zero);
        let (mut first, mut last) = (splat(T::from(n).unwrap_or_else(T::zero)), zero);
        // Of the block: d[first], d[first + 1], e[first], d[last].
        let (mut d_first, mut d_second, mut e_first, mut d_last) = (zero, zero, one, zero);
        let mut index = splat(T::from(from).unwrap_or_else(T::zero));
        let mut d_i = Vector::<T, S>::load(d.add(from * l));
        for i in from..n {
            let (mut d_next, mut e_i, mut negligible) = (zero, zero, one);
            if i + 1 < n {
                d_next = Vector::load(d.add((i + 1) * l));
                e_i = Vector::load(e.add(i * l));
                let bound = (d_i.abs() + d_next.abs()) * u;
                let bound = bound.le(floor, floor, bound);
                negligible = e_i.abs().le(bound, one, zero);
                e_i = e_i.abs().le(bound, zero, e_i);
                e_i.store(e.add(i * l));
            }
            let present = one - negligible;
            // Opens where an entry is present and nothing was opened; closes at the first zero after that.
            first = present.le(opened, first, index);
            d_first = present.le(opened, d_first, d_i);
            d_second = present.le(opened, d_second, d_next);
            e_first = present.le(opened, e_first, e_i);
            opened = present.le(opened, opened, one);
            let ends = opened - present;
            last = ends.le(closed, last, index);
            d_last = ends.le(closed, d_last, d_i);
            closed = ends.le(closed, closed, one);
            index = index + one;
            d_i = d_next;
        }
        let g = (d_second - d_first) / (e_first + e_first);
        let r = g.fma(g, one).sqrt();
        let signed = zero.le(g, g + r, g - r);
        Block { first, last, start: (d_last - d_first) + e_first / signed }
    }
}

/// The smallest `first` and the largest `last` of all lanes.
///
/// # Safety
/// As [`scan`].
#[inline(always)]
unsafe fn range<T: Float, S: Simd<T>>(block: &Block<T, S>, stage: *mut T) -> (usize, usize) {
    // SAFETY: the caller's contract; `stage` has room for two vectors.
    unsafe {
        block.first.store(stage);
        block.last.store(stage.add(S::LANES));
        let (mut first, mut last) = (*stage, *stage.add(S::LANES));
        for i in 1..S::LANES {
            let (a, b) = (*stage.add(i), *stage.add(S::LANES + i));
            first = if a < first { a } else { first };
            last = if b > last { b } else { last };
        }
        (first.to_usize().unwrap_or(0), last.to_usize().unwrap_or(0))
    }
}

/// The eigenvalues into `d`, and the rotations applied to `z`. After `limit` sweeps, lanes with off-diagonal entries left in `e` are given up.
///
/// G groups of lanes run side by side, because a chase is one long chain of dependent operations.
///
/// # Safety
/// As [`scan`], for each room; rooms have one `n`.
#[inline(always)]
pub(super) unsafe fn iterate<T: Float, S: Simd<T>, const G: usize>(rooms: &[Room<T>; G], limit: usize) {
    let Room { n, ld, .. } = rooms[0];
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let splat = |x: T| Vector::<T, S>::splat(x);
        let (zero, one, small) = (splat(T::zero()), splat(T::one()), splat(threshold::<T>()));
        let capacity = n * ld;
        let mut sweeps = [[0usize; 3]; SWEEPS];
        let (mut recorded, mut used, mut done, mut from) = (0, 0, 0, 0);
        loop {
            let mut blocks = [Block::<T, S> { first: zero, last: zero, start: zero }; G];
            let (mut low, mut high) = (n, 0);
            for g in 0..G {
                blocks[g] = scan::<T, S>(&rooms[g], from);
                let (first, last) = range(&blocks[g], rooms[g].stage);
                low = low.min(first);
                high = high.max(last);
            }
            // What is above is done with, in every lane.
            from = low.min(n - 1);
            let finished = low >= high || done == limit;
            if finished || recorded == SWEEPS || used + 2 * (high - low) > capacity {
                for room in rooms {
                    rotate::<T, S>(room, &sweeps, recorded);
                }
                (recorded, used) = (0, 0);
            }
            if finished {
                return;
            }
            let mut sin = [one; G];
            let mut cos = [one; G];
            let mut shift = [zero; G];
            let mut bulge = [zero; G];
            for g in 0..G {
                bulge[g] = blocks[g].start;
            }
            for i in (low..high).rev() {
                let index = splat(T::from(i).unwrap_or_else(T::zero));
                let next = index + one;
                for g in 0..G {
                    let Room { a, d, e, .. } = rooms[g];
                    let Block { first, last, .. } = blocks[g];
                    let active = first.le(index, last.le(index, zero, one), zero);
                    let ends = index.le(first, active, zero);
                    let (d_at, e_at) = (d.add(i * l), e.add(i * l));
                    let (d_i, d_next) = (Vector::<T, S>::load(d_at), Vector::<T, S>::load(d_at.add(l)));
                    let (e_i, e_next) = (Vector::<T, S>::load(e_at), Vector::<T, S>::load(e_at.add(l)));
                    let (f, b) = (sin[g] * e_i, cos[g] * e_i);
                    let square = f.fma(f, bulge[g] * bulge[g]);
                    let r = square.sqrt();
                    let inverse = one / r;
                    // Nothing to rotate: what is dropped is at most u² of the matrix.
                    let s = square.le(small, zero, f * inverse);
                    let c = square.le(small, one, bulge[g] * inverse);
                    let old = d_next - shift[g];
                    let t = (d_i - old).fma(s, (c + c) * b);
                    let p = s * t;
                    let q = c.fma(t, zero - b);
                    // Row `last` has no off-diagonal entry below.
                    active.le(zero, e_next, last.le(next, e_next, r)).store(e_at.add(l));
                    active.le(zero, d_next, old + p).store(d_at.add(l));
                    ends.le(zero, e_i, q).store(e_at);
                    ends.le(zero, d_i, d_i - p).store(d_at);
                    let s = active.le(zero, zero, s);
                    let c = active.le(zero, one, c);
                    let at = a.add((used + 2 * (high - 1 - i)) * l);
                    c.store(at);
                    s.store(at.add(l));
                    // A lane that has not begun keeps what it begins with.
                    sin[g] = active.le(zero, sin[g], s);
                    cos[g] = c;
                    shift[g] = active.le(zero, shift[g], p);
                    bulge[g] = active.le(zero, bulge[g], q);
                }
            }
            sweeps[recorded] = [low, high, used];
            recorded += 1;
            used += 2 * (high - low);
            done += 1;
        }
    }
}

/// Applies recorded sweeps to all rows of the eigenvectors.
///
/// # Safety
/// As [`scan`].
#[inline(always)]
unsafe fn rotate<T: Float, S: Simd<T>>(room: &Room<T>, sweeps: &[[usize; 3]; SWEEPS], count: usize) {
    let n = room.n;
    // SAFETY: the caller's contract; rows below n.
    unsafe {
        let mut row = 0;
        while row + ROWS <= n {
            rotate_rows::<T, S, ROWS>(room, row, sweeps, count);
            row += ROWS;
        }
        if row + 4 <= n {
            rotate_rows::<T, S, 4>(room, row, sweeps, count);
            row += 4;
        }
        while row < n {
            rotate_rows::<T, S, 1>(room, row, sweeps, count);
            row += 1;
        }
    }
}

/// `(z_j, z_j+1) <- (c z_j - s z_j+1, s z_j + c z_j+1)` in R rows, for each rotation in turn. Per rotation `4 R` operations, `R + 2` loads, R
/// stores.
///
/// # Safety
/// As [`scan`].
#[inline(always)]
unsafe fn rotate_rows<T: Float, S: Simd<T>, const R: usize>(
    room: &Room<T>,
    row: usize,
    sweeps: &[[usize; 3]; SWEEPS],
    count: usize,
) {
    let Room { ld, a, z, .. } = *room;
    let l = S::LANES;
    // SAFETY: the caller's contract.
    unsafe {
        for &[low, high, start] in sweeps.iter().take(count) {
            let mut column = z.add((high * ld + row) * l);
            let mut rotation = a.add(start * l).cast_const();
            let mut carried = [Vector::<T, S>::splat(T::zero()); R];
            for r in 0..R {
                carried[r] = Vector::load(column.add(r * l));
            }
            for _ in low..high {
                let (c, s) = (Vector::<T, S>::load(rotation), Vector::<T, S>::load(rotation.add(l)));
                let before = column.sub(ld * l);
                for r in 0..R {
                    let x = Vector::<T, S>::load(before.add(r * l));
                    s.fma(x, c * carried[r]).store(column.add(r * l));
                    carried[r] = s.fnma(carried[r], c * x);
                }
                column = before;
                rotation = rotation.add(2 * l);
            }
            for r in 0..R {
                carried[r].store(column.add(r * l));
            }
        }
    }
}
