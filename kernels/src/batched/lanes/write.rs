//! From lanes back to matrices.

use super::super::blocks::Blocks;
use super::{B, Lanes, Layout, Line, MOST, Part, quads, stretch};
use crate::simd::squares::deinterleave;
use crate::simd::{Quads, SIDES, Simd};
use core::mem::MaybeUninit;
use core::ops::Range;
use num_traits::Float;

/// Undoes the interleaving of matrices of `shape`; lanes with a null pointer are left as they are. A layout of a triangle stands for the whole
/// symmetric matrix. A stretch of a few matrices at a time: rows of 16 matrices of order 32, 64 or 128 lie a multiple of a page apart, all in one set
/// of the cache, and written in turns they would evict one another.
///
/// # Safety
/// As [`read`], the targets writable and `from` readable.
#[inline(always)]
pub(crate) unsafe fn write<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    part: Part,
    from: *const T,
    to: &Lanes<*mut T>,
) {
    // SAFETY: as in `read`; a block that is read stands for one that is not there.
    unsafe {
        let Some((along_rows, line_step)) = to.lines().along() else {
            return write_scattered::<T, S, L>(layout, [m, n], part, from, to);
        };
        let mut squares = Squares::<T> { from, rows: to.first.as_ptr(), list: [Square::NONE; SQUARES], len: 0 };
        let (count, len) = if along_rows { (m, n) } else { (n, m) };
        for line in 0..count {
            let Line { start: first, skip, end } = stretch(line, len, part, along_rows);
            for start in (first..end).step_by(S::LANES) {
                let quads = quads::<T, S, L>(layout, line, start, end, along_rows);
                let offset = line as isize * line_step + start as isize;
                let first = (first + skip).saturating_sub(start);
                squares.add::<S>(Square { quads, offset, start: first, end: S::LANES.min(end - start) });
            }
        }
        squares.write::<S>();
    }
}

/// LANES entries of every matrix, and where they go.
#[derive(Clone, Copy)]
struct Square {
    quads: Quads,
    offset: isize,
    /// Of the entries those that are written.
    start: usize,
    end: usize,
}

impl Square {
    const NONE: Square = Square { quads: Quads::NONE, offset: 0, start: 0, end: 0 };
}

/// How many squares are written together.
const SQUARES: usize = 16;

/// Squares that are written together, for a few matrices at a time. Where they lie is found once for all.
struct Squares<T> {
    from: *const T,
    rows: *const *mut T,
    list: [Square; SQUARES],
    len: usize,
}

impl<T: Float> Squares<T> {
    /// # Safety
    /// As [`write`].
    #[inline(always)]
    unsafe fn add<S: Simd<T>>(&mut self, square: Square) {
        if square.start >= square.end {
            return;
        }
        self.list[self.len] = square;
        self.len += 1;
        if self.len == SQUARES {
            // SAFETY: the caller's contract.
            unsafe { self.write::<S>() }
        }
    }

    /// # Safety
    /// As [`write`].
    #[inline(always)]
    unsafe fn write<S: Simd<T>>(&mut self) {
        let list = &self.list[..self.len.min(SQUARES)];
        self.len = 0;
        // SAFETY: the caller's contract.
        unsafe {
            for share in 0..S::LANES / S::SIDE {
                let (rows, all) = share_rows::<T, S>(self.rows, share);
                for &Square { ref quads, offset, start, end } in list {
                    let v = deinterleave::<T, S>(self.from, quads, share);
                    if all && end - start == S::LANES {
                        for (row, &vector) in rows.iter().zip(&v).take(S::SIDE) {
                            S::store(row.offset(offset), vector);
                        }
                    } else {
                        store_range::<T, S>(&rows, offset, &v, start..end);
                    }
                }
            }
        }
    }
}

/// The matrices of a share of the lanes, and whether all of them are written.
///
/// # Safety
/// As [`write`]: LANES pointers.
#[inline(always)]
unsafe fn share_rows<T: Float, S: Simd<T>>(all: *const *mut T, share: usize) -> ([*mut T; SIDES], bool) {
    let mut rows = [core::ptr::null_mut(); SIDES];
    for (b, row) in rows.iter_mut().enumerate().take(S::SIDE) {
        // SAFETY: one of LANES pointers.
        *row = unsafe { *all.add(share * S::SIDE + b) };
    }
    (rows, rows[..S::SIDE].iter().all(|row| !row.is_null()))
}

/// Entries `wanted` of vectors, at `offset` of each row that is not null.
///
/// # Safety
/// As [`write`].
#[inline(always)]
unsafe fn store_range<T: Float, S: Simd<T>>(
    rows: &[*mut T; SIDES],
    offset: isize,
    v: &[S::V; SIDES],
    wanted: Range<usize>,
) {
    for (row, &vector) in rows.iter().zip(v).take(S::SIDE) {
        if !row.is_null() {
            // SAFETY: the caller's contract.
            unsafe { S::store_range(row.wrapping_offset(offset), vector, wanted.clone()) }
        }
    }
}

/// Where four entries of a row lie in a triangle: the first of four vectors, and the step to the next, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: u32,
    step: u32,
}

/// Before the first place and after the last of a matrix one vector's worth, which no one asks for but the ends of skewed squares.
const MARGIN: usize = MOST / B;

/// How many places [`whole_places`] are.
pub(crate) const fn places(n: usize) -> usize {
    if n.is_multiple_of(B) { n * n / B + 2 * MARGIN } else { 0 }
}

/// The places of a symmetric matrix of order `n`, row after row, for [`write_whole`]. None if rows do not end where blocks do.
/// A vector takes `bytes`.
pub(crate) fn whole_places(n: usize, bytes: usize, memory: &mut [MaybeUninit<Place>]) -> &[Place] {
    let margin = core::iter::repeat_n((0, 0), MARGIN);
    let entries = (0..n).flat_map(|i| (0..n / B).map(move |j| (i, j * B)));
    for (to, (i, j)) in memory.iter_mut().zip(margin.clone().chain(entries).chain(margin)) {
        let (at, steps) = Blocks.at(i, j);
        to.write(Place { at: (at * bytes) as u32, step: (steps[0] * bytes) as u32 });
    }
    // SAFETY: all are written: as many as `places` says.
    unsafe { &*(core::ptr::from_mut(memory) as *const [Place]) }
}

/// [`write()`] of all of matrices of `len` entries without gaps, each one line, which begins so that vectors do not straddle cache lines.
///
/// # Safety
/// As [`write()`]; the places are those of the matrices' order.
#[inline(always)]
pub(crate) unsafe fn write_whole<T: Float, S: Simd<T>>(
    places: &[Place],
    len: usize,
    from: *const T,
    to: &Lanes<*mut T>,
) {
    let skew = to.skew(len, S::LANES);
    let (places, squares) = (places.as_ptr().wrapping_add(MARGIN - skew / B), (len + skew).div_ceil(S::LANES));
    // Squares that are not whole: the first, if it is skewed, and the last, if the matrix ends before it does.
    let (first, last) = (usize::from(skew > 0), (len + skew) / S::LANES);
    // SAFETY: the caller's contract; a square's first place is at most a vector before the first of all.
    unsafe {
        for start in (0..squares).step_by(SQUARES) {
            for share in 0..S::LANES / S::SIDE {
                let (rows, all) = share_rows::<T, S>(to.first.as_ptr(), share);
                for square in start..squares.min(start + SQUARES) {
                    let mut quads = Quads::NONE;
                    for q in 0..S::LANES.div_ceil(B) {
                        let Place { at, step } = *places.add(square * (S::LANES / B) + q);
                        (quads.at[q], quads.step[q]) = (at as usize, step as usize);
                    }
                    let v = deinterleave::<T, S>(from, &quads, share);
                    let offset = (square * S::LANES) as isize - skew as isize;
                    if all && square >= first && square < last {
                        for (row, &vector) in rows.iter().zip(&v).take(S::SIDE) {
                            S::store(row.offset(offset), vector);
                        }
                    } else {
                        let start = skew.saturating_sub(square * S::LANES);
                        store_range::<T, S>(&rows, offset, &v, start..S::LANES.min(len + skew - square * S::LANES));
                    }
                }
            }
        }
    }
}

/// [`write`] to matrices with any strides.
///
/// # Safety
/// As [`write`].
#[inline(always)]
unsafe fn write_scattered<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    part: Part,
    from: *const T,
    to: &Lanes<*mut T>,
) {
    // SAFETY: as in `write`.
    unsafe {
        for lane in (0..S::LANES).filter(|&lane| !to.first[lane].is_null()) {
            let [row_step, step] = to.strides(lane);
            for i in 0..m {
                for j in 0..if part == Part::Lower { i + 1 } else { n } {
                    let at = i as isize * row_step + j as isize * step;
                    *to.first[lane].offset(at) = *from.add(layout.at(i, j).0 * S::LANES + lane);
                }
            }
        }
    }
}
