//! One matrix in each lane: up to LANES matrices of one shape are interleaved, so that a vector holds the same entry of all of them, and undone.
//!
//! ```text
//! matrices                         buffer, entry by entry
//!   A: a00 a01 ..   a10 a11 ..       [a00 b00 c00 ..] [a01 b01 c01 ..] ..     LANES elements each, aligned
//!   B: b00 b01 ..   b10 b11 ..
//! ```
//!
//! Where the entries of a row, or of a column, follow one another, squares of LANES go through registers, four columns of a square to one
//! block of the buffer; with other strides they are first copied to where they do.

use super::blocks::B;
use crate::simd::{Quads, Simd, line, prefetch_l2};
use crate::view::{MatMut, MatRef};
use num_traits::Float;

/// The most lanes of any instruction set.
pub(crate) const MOST: usize = 16;

/// Where a buffer holds the entries of a matrix.
pub(crate) trait Layout: Copy {
    /// The vector of entry `(i, j)`, and from it to the next within the block, along a row or along a column.
    fn at(self, i: usize, j: usize) -> (usize, [usize; 2]);
}

/// The matrices of the lanes: first entries and strides. Lanes without a matrix repeat one to read, and have a null pointer to write.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<P> {
    first: [P; MOST],
    strides: [[isize; 2]; MOST],
}

/// Along which axis entries follow one another, in every lane.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Rows,
    Columns,
    /// In one stretch: row-major, no gaps.
    All,
    Neither,
}

macro_rules! columns_from {
    ($pointer:ty) => {
        impl<T> Lanes<$pointer> {
            /// The same matrices from column `start` on.
            #[inline(always)]
            pub(crate) fn columns_from(&self, start: usize) -> Self {
                let mut lanes = Lanes { ..*self };
                for (first, [_, step]) in lanes.first.iter_mut().zip(&self.strides) {
                    if !first.is_null() {
                        *first = first.wrapping_offset(start as isize * step);
                    }
                }
                lanes
            }
        }
    };
}

columns_from!(*const T);
columns_from!(*mut T);

impl<P: Copy> Lanes<P> {
    #[inline(always)]
    fn lines(&self, lanes: usize, cols: usize) -> Lines {
        let strides = &self.strides[..lanes];
        match () {
            () if strides.iter().all(|&s| s == [cols as isize, 1]) => Lines::All,
            () if strides.iter().all(|s| s[1] == 1) => Lines::Rows,
            () if strides.iter().all(|s| s[0] == 1) => Lines::Columns,
            () => Lines::Neither,
        }
    }
}

impl<T> Lanes<*const T> {
    /// At least one matrix, and at most [`MOST`].
    pub(crate) fn sources<'a>(matrices: impl IntoIterator<Item = MatRef<'a, T>>) -> Self
    where
        T: 'a,
    {
        let mut lanes = Lanes { first: [core::ptr::null(); MOST], strides: [[0; 2]; MOST] };
        let mut count = 0;
        for matrix in matrices {
            (lanes.first[count], lanes.strides[count]) = (matrix.as_ptr(), matrix.strides());
            count += 1;
        }
        for lane in count..MOST {
            (lanes.first[lane], lanes.strides[lane]) = (lanes.first[count - 1], lanes.strides[count - 1]);
        }
        lanes
    }
}

impl<T> Lanes<*mut T> {
    /// At most [`MOST`] matrices.
    pub(crate) fn targets<'a>(matrices: impl IntoIterator<Item = MatMut<'a, T>>) -> Self
    where
        T: 'a,
    {
        let mut lanes = Lanes { first: [core::ptr::null_mut(); MOST], strides: [[0; 2]; MOST] };
        let mut count = 0;
        for mut matrix in matrices {
            (lanes.first[count], lanes.strides[count]) = (matrix.as_mut_ptr(), matrix.strides());
            count += 1;
        }
        // Strides of lanes without a matrix must not stand in the way of the fast paths.
        for lane in count..MOST {
            lanes.strides[lane] = lanes.strides[count.saturating_sub(1)];
        }
        lanes
    }

    /// No matrices.
    pub(crate) fn nowhere() -> Self {
        Lanes { first: [core::ptr::null_mut(); MOST], strides: [[0; 2]; MOST] }
    }

    /// Nothing is written to these lanes.
    pub(crate) fn leave(&mut self, lane: usize) {
        self.first[lane] = core::ptr::null_mut();
    }
}

/// What of a matrix is read or written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All entries.
    All,
    /// The lower triangle of a symmetric matrix.
    Lower,
}

#[repr(C, align(64))]
struct Stage<T>([[T; MOST]; MOST]);

/// A line of entries, and which of them are wanted: from `skip` after `start` up to `end`, `start` where a block starts.
struct Line {
    start: usize,
    skip: usize,
    end: usize,
}

/// Line `line` of a matrix, of `len` entries.
#[inline(always)]
fn stretch(index: usize, len: usize, part: Part, along_rows: bool) -> Line {
    match (part, along_rows) {
        (Part::All, _) => Line { start: 0, skip: 0, end: len },
        (Part::Lower, true) => Line { start: 0, skip: 0, end: index + 1 },
        (Part::Lower, false) => Line { start: index / B * B, skip: index % B, end: len },
    }
}

/// The blocks that LANES entries of a line lie in, from entry `start` on.
#[inline(always)]
fn quads<T, S: Simd<T>, L: Layout>(layout: L, line: usize, start: usize, end: usize, along_rows: bool) -> Quads
where
    T: Copy,
{
    let mut quads = Quads { at: [usize::MAX; MOST / B], step: [0; MOST / B] };
    for q in 0..S::LANES.div_ceil(B) {
        let entry = start + q * B;
        if entry < end {
            let (at, steps) = if along_rows { layout.at(line, entry) } else { layout.at(entry, line) };
            (quads.at[q], quads.step[q]) = (at * S::LANES, steps[usize::from(!along_rows)] * S::LANES);
        }
    }
    quads
}

/// Interleaves `scale` times matrices of `shape`. Of a lower triangle, blocks on the diagonal are written whole, with entries that mean nothing above
/// the diagonal.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: the sources are readable, `to` is writable wherever the layout puts
/// an entry, and up to the end of the block there.
#[inline(always)]
pub(crate) unsafe fn read<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    part: Part,
    scale: &[T; MOST],
    from: &Lanes<*const T>,
    to: *mut T,
) {
    let mut stage = Stage([[T::zero(); MOST]; MOST]);
    let stage = stage.0.as_mut_ptr();
    let stage_rows: [*const T; MOST] = core::array::from_fn(|lane| stage.wrapping_add(lane).cast_const().cast());
    let scale = scale.as_ptr();
    // SAFETY: stretches end where the matrix does, blocks where the buffer does.
    unsafe {
        let lines = from.lines(S::LANES, n);
        if lines == Lines::All && n < S::LANES && n % B == 0 {
            for start in (0..m * n).step_by(S::LANES) {
                let mut quads = Quads { at: [usize::MAX; MOST / B], step: [0; MOST / B] };
                for q in 0..S::LANES.div_ceil(B) {
                    let entry = start + q * B;
                    let (i, j) = (entry / n, entry % n);
                    if entry < m * n && (part == Part::All || j / B <= i / B) {
                        let (at, steps) = layout.at(i, j);
                        (quads.at[q], quads.step[q]) = (at * S::LANES, steps[0] * S::LANES);
                    }
                }
                S::interleave(to, &quads, from.first.as_ptr(), start, S::LANES.min(m * n - start), scale);
            }
            return;
        }
        let along_rows = lines != Lines::Columns;
        let (count, len) = if along_rows { (m, n) } else { (n, m) };
        let mut rows = from.first;
        for line in 0..count {
            let Line { start, end, .. } = stretch(line, len, part, along_rows);
            let end = end.next_multiple_of(B);
            for start in (start..end).step_by(S::LANES) {
                let width = S::LANES.min(len.saturating_sub(start));
                let quads = quads::<T, S, L>(layout, line, start, end, along_rows);
                if lines == Lines::Neither {
                    for (lane, &row) in rows.iter().enumerate().take(S::LANES) {
                        for e in 0..width {
                            (*stage.add(lane))[e] = *row.offset((start + e) as isize * from.strides[lane][1]);
                        }
                    }
                    S::interleave(to, &quads, stage_rows.as_ptr(), 0, width, scale);
                } else {
                    S::interleave(to, &quads, rows.as_ptr(), start, width, scale);
                }
            }
            for (row, strides) in rows.iter_mut().zip(&from.strides) {
                *row = row.wrapping_offset(strides[usize::from(!along_rows)]);
            }
        }
    }
}

/// Undoes the interleaving of matrices of `shape`; lanes with a null pointer are left as they are. A layout of a triangle stands for the whole
/// symmetric matrix.
///
/// # Safety
/// As [`read`], the targets writable and `from` readable; [`room`] elements at `room` are writable.
#[inline(always)]
pub(crate) unsafe fn write<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    part: Part,
    from: *const T,
    to: &Lanes<*mut T>,
    room: *mut T,
) {
    let mut stage = Stage([[T::zero(); MOST]; MOST]);
    let stage = stage.0.as_mut_ptr();
    let stage_rows: [*mut T; MOST] = core::array::from_fn(|lane| stage.wrapping_add(lane).cast());
    // SAFETY: as in `read`; a block that is read stands for one that is not there.
    unsafe {
        let lines = to.lines(S::LANES, n);
        if lines == Lines::All && n < S::LANES && n % B == 0 && part == Part::All {
            for start in (0..m * n).step_by(S::LANES) {
                let mut quads = Quads { at: [0; MOST / B], step: [0; MOST / B] };
                for q in 0..S::LANES.div_ceil(B) {
                    let entry = start + q * B;
                    if entry < m * n {
                        let (at, steps) = layout.at(entry / n, entry % n);
                        (quads.at[q], quads.step[q]) = (at * S::LANES, steps[0] * S::LANES);
                    }
                }
                S::deinterleave(to.first.as_ptr(), start, 0..S::LANES.min(m * n - start), from, &quads);
            }
            return;
        }
        if lines == Lines::All && part == Part::All && n > S::LANES {
            return write_stretches::<T, S, L>(layout, [m, n], from, to, room);
        }
        let along_rows = lines != Lines::Columns;
        let (count, len) = if along_rows { (m, n) } else { (n, m) };
        let mut rows = to.first;
        for line in 0..count {
            let Line { start: first, skip, end } = stretch(line, len, part, along_rows);
            for start in (first..end).step_by(S::LANES) {
                let wanted = (first + skip).saturating_sub(start)..S::LANES.min(end - start);
                let mut quads = quads::<T, S, L>(layout, line, start, end, along_rows);
                for q in 1..MOST / B {
                    if quads.at[q] == usize::MAX {
                        quads.at[q] = quads.at[0];
                    }
                }
                if lines == Lines::Neither {
                    S::deinterleave(stage_rows.as_ptr(), 0, wanted.clone(), from, &quads);
                    for lane in (0..S::LANES).filter(|&lane| !rows[lane].is_null()) {
                        for e in wanted.clone() {
                            *rows[lane].offset((start + e) as isize * to.strides[lane][1]) = (*stage.add(lane))[e];
                        }
                    }
                } else if !wanted.is_empty() {
                    S::deinterleave(rows.as_ptr(), start, wanted, from, &quads);
                }
            }
            for (row, strides) in rows.iter_mut().zip(&to.strides) {
                if !row.is_null() {
                    *row = row.wrapping_offset(strides[usize::from(!along_rows)]);
                }
            }
        }
    }
}

/// Elements of each matrix that [`write_stretches`] collects before it writes them, and their distance, which keeps lanes apart in a cache.
const STRETCH: usize = 256;
const STRETCH_STEP: usize = STRETCH + 16;

/// Elements of `room` for [`write`].
pub(crate) const fn room(lanes: usize) -> usize {
    lanes * STRETCH_STEP
}

/// [`write`] for matrices without gaps. Squares go to `room` first, and from there to each matrix in stretches: rows of LANES matrices of order 32, 64
/// or 128 are a multiple of a page apart, all in one set of the cache, and written in turns they would evict one another.
///
/// # Safety
/// As [`write`], [`room`] elements writable at `room`.
#[inline(always)]
unsafe fn write_stretches<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    from: *const T,
    to: &Lanes<*mut T>,
    room: *mut T,
) {
    // SAFETY: stretches lie inside the matrices; `room` has one for each lane, unless a single row is longer, which is then cut.
    unsafe {
        let width = n.min(STRETCH);
        let many = STRETCH / width;
        let mut rows = [core::ptr::null_mut::<T>(); MOST];
        for lane in (0..S::LANES).filter(|&lane| !to.first[lane].is_null()) {
            rows[lane] = room.add(lane * STRETCH_STEP);
        }
        for column in (0..n).step_by(width) {
            let end = n.min(column + width);
            for first in (0..m).step_by(many) {
                let last = m.min(first + many);
                for i in first..last {
                    for start in (column..end).step_by(S::LANES) {
                        let mut quads = quads::<T, S, L>(layout, i, start, end, true);
                        for q in 1..MOST / B {
                            if quads.at[q] == usize::MAX {
                                quads.at[q] = quads.at[0];
                            }
                        }
                        let wanted = 0..S::LANES.min(end - start);
                        S::deinterleave(
                            rows.as_ptr(),
                            (i - first) * (end - column) + start - column,
                            wanted,
                            from,
                            &quads,
                        );
                    }
                }
                let len = (last - first) * (end - column);
                for lane in (0..S::LANES).filter(|&lane| !to.first[lane].is_null()) {
                    let to = to.first[lane].add(first * n + column);
                    let mut e = 0;
                    while e + S::LANES <= len {
                        S::store(to.add(e), S::load(rows[lane].add(e)));
                        e += S::LANES;
                    }
                    if e < len {
                        S::store_first(to.add(e), S::load_first(rows[lane].add(e), len - e), len - e);
                    }
                }
            }
        }
    }
}

/// Fetches, a few lines at a time while a group is computed, where its outputs go and what the next group reads: all of a group's memory is
/// touched once, in many short stretches, which hardware prefetchers do not follow.
pub(crate) struct Ahead<T> {
    pointers: [[*const T; MOST]; 2],
    /// Elements of a matrix, if they lie in one stretch.
    len: usize,
    lane: usize,
    at: usize,
    each: usize,
}

impl<T> Ahead<T> {
    /// For matrices of order `n`, in `steps` steps.
    #[inline(always)]
    pub(crate) fn new(n: usize, lanes: usize, steps: usize, out: &Lanes<*mut T>, next: &Lanes<*const T>) -> Self {
        let contiguous = |lines| lines == Lines::All;
        let len = if contiguous(out.lines(lanes, n)) && contiguous(next.lines(lanes, n)) { n * n } else { 0 };
        let mut pointers = [out.first.map(|pointer| pointer.cast_const()), next.first];
        pointers[0][lanes..].fill(core::ptr::null());
        pointers[1][lanes..].fill(core::ptr::null());
        Ahead { pointers, len, lane: 0, at: 0, each: (len * lanes).div_ceil(line::<T>() * steps.max(1)) }
    }

    /// One step.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for _ in 0..self.each {
            if self.lane == MOST {
                return;
            }
            prefetch_l2(self.pointers[0][self.lane].wrapping_add(self.at));
            prefetch_l2(self.pointers[1][self.lane].wrapping_add(self.at));
            self.at += line::<T>();
            if self.at >= self.len {
                (self.lane, self.at) = (self.lane + 1, 0);
            }
        }
    }
}
