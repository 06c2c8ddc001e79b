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
use crate::simd::squares::{deinterleave, interleave};
use crate::simd::{Quads, SIDES, Simd, line, prefetch_l2};
use crate::view::{MatMut, MatRef};
use num_traits::Float;

/// The most lanes of any instruction set.
pub(crate) const MOST: usize = 16;

/// Where a buffer holds the entries of a matrix.
pub(crate) trait Layout: Copy {
    /// The vector of entry `(i, j)`, and from it to the next within the block, along a row or along a column.
    fn at(self, i: usize, j: usize) -> (usize, [usize; 2]);
}

/// The matrices of the lanes. Lanes without a matrix repeat one to read, and have a null pointer to write.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<P> {
    /// First entries.
    first: [P; MOST],
    strides: Strides,
}

#[derive(Clone, Copy)]
enum Strides {
    /// Of all matrices.
    Same([isize; 2]),
    Each([[isize; 2]; MOST]),
}

/// Along which axis entries follow one another, in every lane, and how far it is from line to line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Rows(isize),
    Columns(isize),
    /// Neither, or not the same in all lanes.
    Other,
}

impl Lines {
    /// Whether lines are rows, and the way from one to the next.
    #[inline(always)]
    fn along(self) -> Option<(bool, isize)> {
        match self {
            Lines::Rows(step) => Some((true, step)),
            Lines::Columns(step) => Some((false, step)),
            Lines::Other => None,
        }
    }
}

impl<P: Copy> Lanes<P> {
    /// At most [`MOST`] matrices; other lanes have the pointer that `other` makes of the last one's.
    #[inline]
    fn new(matrices: impl IntoIterator<Item = (P, [isize; 2])>, none: P, other: impl Fn(P) -> P) -> Self {
        let mut lanes = Lanes { first: [none; MOST], strides: Strides::Same([0; 2]) };
        let (mut count, mut last) = (0, none);
        for (first, strides) in matrices {
            lanes.first[count] = first;
            lanes.add(count, strides);
            (count, last) = (count + 1, first);
        }
        lanes.first[count..].fill(other(last));
        lanes
    }

    /// Strides of lane `lane`, those before it known.
    #[inline]
    fn add(&mut self, lane: usize, strides: [isize; 2]) {
        match &mut self.strides {
            Strides::Same(same) if lane == 0 => *same = strides,
            Strides::Same(same) if *same == strides => {}
            Strides::Same(same) => {
                let mut each = [*same; MOST];
                each[lane..].fill(strides);
                self.strides = Strides::Each(each);
            }
            Strides::Each(each) => each[lane..].fill(strides),
        }
    }

    #[inline(always)]
    fn strides(&self, lane: usize) -> [isize; 2] {
        match &self.strides {
            Strides::Same(strides) => *strides,
            Strides::Each(each) => each[lane],
        }
    }

    #[inline(always)]
    fn lines(&self) -> Lines {
        match self.strides {
            Strides::Same([step, 1]) => Lines::Rows(step),
            Strides::Same([1, step]) => Lines::Columns(step),
            _ => Lines::Other,
        }
    }
}

impl<T> Lanes<*const T> {
    /// At least one matrix, and at most [`MOST`].
    #[inline]
    pub(crate) fn sources<'a>(matrices: impl IntoIterator<Item = MatRef<'a, T>>) -> Self
    where
        T: 'a,
    {
        let matrices = matrices.into_iter().map(|matrix| (matrix.as_ptr(), matrix.strides()));
        Lanes::new(matrices, core::ptr::null(), |last| last)
    }

    /// The same matrices from column `start` on.
    #[inline(always)]
    pub(crate) fn columns_from(&self, start: usize) -> Self {
        let mut lanes = *self;
        for (lane, first) in lanes.first.iter_mut().enumerate() {
            *first = first.wrapping_offset(start as isize * self.strides(lane)[1]);
        }
        lanes
    }
}

impl<T> Lanes<*mut T> {
    /// At most [`MOST`] matrices.
    #[inline]
    pub(crate) fn targets<'a>(matrices: impl IntoIterator<Item = MatMut<'a, T>>) -> Self
    where
        T: 'a,
    {
        let matrices = matrices.into_iter().map(|mut matrix| (matrix.as_mut_ptr(), matrix.strides()));
        Lanes::new(matrices, core::ptr::null_mut(), |_| core::ptr::null_mut())
    }

    /// No matrices.
    pub(crate) fn nowhere() -> Self {
        Lanes { first: [core::ptr::null_mut(); MOST], strides: Strides::Same([0; 2]) }
    }

    /// How many elements before a matrix of `len` elements a line of the cache begins, if it is the same in all lanes, whole blocks, and worth
    /// while: a store that straddles two lines costs as much as two.
    #[inline(always)]
    fn skew(&self, len: usize, lanes: usize) -> usize {
        let before = |first: &*mut T| first.addr() % 64 / size_of::<T>();
        let skew = before(&self.first[0]);
        let same = |first: &*mut T| first.is_null() || before(first) == skew;
        match len >= 8 * MOST && skew % B == 0 && self.first[..lanes].iter().all(same) {
            true => skew % lanes,
            false => 0,
        }
    }

    /// Nothing is written to these lanes.
    pub(crate) fn leave(&mut self, lane: usize) {
        self.first[lane] = core::ptr::null_mut();
    }

    /// The same matrices from column `start` on.
    #[inline(always)]
    pub(crate) fn columns_from(&self, start: usize) -> Self {
        let mut lanes = *self;
        for (lane, first) in lanes.first.iter_mut().enumerate().filter(|(_, first)| !first.is_null()) {
            *first = first.wrapping_offset(start as isize * self.strides(lane)[1]);
        }
        lanes
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

/// First element of entry `entry` of line `line`, and from it to the next in its block.
#[inline(always)]
fn place<T: Copy, S: Simd<T>, L: Layout>(layout: L, line: usize, entry: usize, along_rows: bool) -> (usize, usize) {
    let (at, steps) = if along_rows { layout.at(line, entry) } else { layout.at(entry, line) };
    (at * S::LANES, steps[usize::from(!along_rows)] * S::LANES)
}

/// The blocks that LANES entries of a line lie in, from entry `start` on; where there is none, the first once more.
#[inline(always)]
fn quads<T: Copy, S: Simd<T>, L: Layout>(layout: L, line: usize, start: usize, end: usize, along_rows: bool) -> Quads {
    let mut quads = Quads::NONE;
    for q in 0..S::LANES.div_ceil(B) {
        let entry = start + q * B;
        let entry = if entry < end { entry } else { start };
        quads.set::<T>(q, place::<T, S, L>(layout, line, entry, along_rows));
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
    // SAFETY: lines end where the matrix does, blocks where the buffer does.
    unsafe {
        let scale = S::load(scale.as_ptr());
        let Some((along_rows, line_step)) = from.lines().along() else {
            return read_scattered::<T, S, L>(layout, [m, n], part, scale, from, to);
        };
        let (count, len) = if along_rows { (m, n) } else { (n, m) };
        let rows = from.first.as_ptr();
        for line in 0..count {
            let Line { start, end, .. } = stretch(line, len, part, along_rows);
            let mut offset = line as isize * line_step + start as isize;
            let whole = len / B * B;
            for start in (start..end.min(whole)).step_by(B) {
                let (at, step) = place::<T, S, L>(layout, line, start, along_rows);
                interleave::<T, S>(to.add(at), step, rows, offset, B, scale);
                offset += B as isize;
            }
            if end > whole {
                let (at, step) = place::<T, S, L>(layout, line, whole, along_rows);
                interleave::<T, S>(to.add(at), step, rows, offset, len - whole, scale);
            }
        }
    }
}

/// [`read`] of matrices with any strides.
///
/// # Safety
/// As [`read`].
#[inline(always)]
unsafe fn read_scattered<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    [m, n]: [usize; 2],
    part: Part,
    scale: S::V,
    from: &Lanes<*const T>,
    to: *mut T,
) {
    let mut stage = Stage([[T::zero(); MOST]; MOST]);
    let stage = stage.0.as_mut_ptr();
    let stage_rows: [*const T; MOST] = core::array::from_fn(|lane| stage.wrapping_add(lane).cast_const().cast());
    // SAFETY: as in `read`.
    unsafe {
        for line in 0..m {
            let Line { start, end, .. } = stretch(line, n, part, true);
            for start in (start..end).step_by(B) {
                for lane in 0..S::LANES {
                    let ([row_step, step], first) = (from.strides(lane), from.first[lane]);
                    for e in 0..B {
                        let at = line as isize * row_step + (start + e) as isize * step;
                        (*stage.add(lane))[e] = if start + e < n { *first.offset(at) } else { T::zero() };
                    }
                }
                let (at, step) = place::<T, S, L>(layout, line, start, true);
                interleave::<T, S>(to.add(at), step, stage_rows.as_ptr(), 0, B, scale);
            }
        }
    }
}

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
        let whole = Lines::Rows(n as isize);
        let len = if out.lines() == whole && next.lines() == whole { n * n } else { 0 };
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
