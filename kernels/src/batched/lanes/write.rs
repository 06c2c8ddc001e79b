//! From lanes back to matrices.

use super::{B, Lanes, Layout, Line, Lines, Part, place, quads, stretch};
use crate::simd::squares::deinterleave;
use crate::simd::{Quads, SIDES, Simd};
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
        let lines = to.lines();
        let Some((along_rows, line_step)) = lines.along() else {
            return write_scattered::<T, S, L>(layout, [m, n], part, from, to);
        };
        let mut squares = Squares::<T> { from, rows: to.first.as_ptr(), list: [Square::NONE; SQUARES], len: 0 };
        if lines == Lines::Rows(n as isize) && n % B == 0 && part == Part::All && S::LANES >= B {
            // Without gaps a matrix is one line, which begins so that vectors do not straddle cache lines.
            let skew = to.skew(m * n, S::LANES);
            let (mut i, mut j) = (0, 0);
            for start in (0..m * n + skew).step_by(S::LANES) {
                let mut quads = Quads::NONE;
                for q in 0..S::LANES.div_ceil(B) {
                    let entry = start + q * B;
                    if entry >= skew && entry < m * n + skew {
                        quads.set::<T>(q, place::<T, S, L>(layout, i, j, true));
                        j += B;
                        if j == n {
                            (i, j) = (i + 1, 0);
                        }
                    }
                }
                let (first, end) = (skew.saturating_sub(start), S::LANES.min(m * n + skew - start));
                squares.add::<S>(Square { quads, offset: start as isize - skew as isize, start: first, end });
            }
        } else {
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
                let mut rows = [core::ptr::null_mut(); SIDES];
                for (b, row) in rows.iter_mut().enumerate().take(S::SIDE) {
                    *row = *self.rows.add(share * S::SIDE + b);
                }
                let all = rows[..S::SIDE].iter().all(|row| !row.is_null());
                for &Square { ref quads, offset, start, end } in list {
                    let v = deinterleave::<T, S>(self.from, quads, share);
                    if all && end - start == S::LANES {
                        for (row, &vector) in rows.iter().zip(&v).take(S::SIDE) {
                            S::store(row.offset(offset), vector);
                        }
                    } else {
                        for (row, &vector) in rows.iter().zip(&v).take(S::SIDE) {
                            if !row.is_null() {
                                S::store_range(row.wrapping_offset(offset), vector, start..end);
                            }
                        }
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
