//! One matrix in each lane: up to LANES matrices of one shape are interleaved, so that a vector holds the same entry of all of them, and undone.
//!
//! ```text
//! matrices                         buffer, entry by entry
//!   A: a00 a01 ..   a10 a11 ..       [a00 b00 c00 ..] [a01 b01 c01 ..] ..     LANES elements each, aligned
//!   B: b00 b01 ..   b10 b11 ..
//! ```
//!
//! Where the entries of a row, or of a column, follow one another, four of them from every matrix go through registers to one block of the buffer;
//! other strides go entry by entry.

mod write;

pub(crate) use write::{Place, places, whole_places, write, write_whole};

use super::blocks::B;
use crate::simd::squares::interleave;
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

/// The matrices of the lanes. Lanes without a matrix repeat one to read, and have a null pointer to write.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<P> {
    /// First entries.
    first: [P; MOST],
    strides: Strides,
}

/// One value for each group, on its task's stack.
#[allow(clippy::large_enum_variant)]
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
    fn set_all(&mut self, matrices: impl IntoIterator<Item = (P, [isize; 2])>, other: impl Fn(P) -> P) {
        let mut count = 0;
        for (first, strides) in matrices {
            self.first[count] = first;
            self.add(count, strides);
            count += 1;
        }
        let last = self.first[count.saturating_sub(1)];
        self.first[count..].fill(other(last));
    }

    #[inline(always)]
    fn set_same(&mut self, strides: [isize; 2]) {
        match &mut self.strides {
            Strides::Same(same) => *same = strides,
            each => *each = Strides::Same(strides),
        }
    }

    /// Strides of lane `lane`, those before it known.
    #[inline]
    fn add(&mut self, lane: usize, strides: [isize; 2]) {
        if lane == 0 {
            return self.set_same(strides);
        }
        match &mut self.strides {
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
    /// If rows of `n` entries are whole blocks, in every lane, the way from one to the next.
    #[inline(always)]
    pub(crate) fn rows_of_blocks(&self, n: usize) -> Option<isize> {
        match self.lines() {
            Lines::Rows(step) if n.is_multiple_of(B) => Some(step),
            _ => None,
        }
    }

    /// None.
    pub(crate) fn nowhere() -> Self {
        Lanes { first: [core::ptr::null(); MOST], strides: Strides::Same([0; 2]) }
    }

    /// At least one matrix, and at most [`MOST`].
    #[inline]
    pub(crate) fn set<'a>(&mut self, matrices: impl IntoIterator<Item = MatRef<'a, T>>)
    where
        T: 'a,
    {
        let matrices = matrices.into_iter().map(|matrix| (matrix.as_ptr(), matrix.strides()));
        self.set_all(matrices, |last| last);
    }

    /// The same, new.
    #[inline]
    pub(crate) fn sources<'a>(matrices: impl IntoIterator<Item = MatRef<'a, T>>) -> Self
    where
        T: 'a,
    {
        let mut lanes = Lanes::<*const T>::nowhere();
        lanes.set(matrices);
        lanes
    }

    /// `count` matrices, the first of them and others `step` elements apart.
    #[inline]
    pub(crate) fn set_even(&mut self, first: MatRef<'_, T>, step: isize, count: usize) {
        let mut pointer = first.as_ptr();
        for to in &mut self.first[..count] {
            *to = pointer;
            pointer = pointer.wrapping_offset(step);
        }
        self.first[count..].fill(pointer.wrapping_offset(-step));
        self.set_same(first.strides());
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
    /// None.
    pub(crate) fn nowhere() -> Self {
        Lanes { first: [core::ptr::null_mut(); MOST], strides: Strides::Same([0; 2]) }
    }

    /// At most [`MOST`] matrices.
    #[inline]
    pub(crate) fn set<'a>(&mut self, matrices: impl IntoIterator<Item = MatMut<'a, T>>)
    where
        T: 'a,
    {
        let matrices = matrices.into_iter().map(|mut matrix| (matrix.as_mut_ptr(), matrix.strides()));
        self.set_all(matrices, |_| core::ptr::null_mut());
    }

    /// `count` matrices, the first of them and others `step` elements apart.
    #[inline]
    pub(crate) fn set_even(&mut self, mut first: MatMut<'_, T>, step: isize, count: usize) {
        let mut pointer = first.as_mut_ptr();
        for to in &mut self.first[..count] {
            *to = pointer;
            pointer = pointer.wrapping_offset(step);
        }
        self.first[count..].fill(core::ptr::null_mut());
        self.set_same(first.strides());
    }

    /// Whether the rows of a matrix of `n` columns follow one another without gaps, in every lane.
    #[inline(always)]
    pub(crate) fn whole(&self, n: usize) -> bool {
        self.lines() == Lines::Rows(n as isize)
    }

    /// How many elements before a matrix of `len` elements a line of the cache begins, if it is the same in all lanes, whole blocks, and worth
    /// while: a store that straddles two lines costs as much as two.
    #[inline(always)]
    fn skew(&self, len: usize, lanes: usize) -> usize {
        let before = |first: &*mut T| first.addr() % 64 / size_of::<T>();
        let skew = before(&self.first[0]);
        let same = |first: &*mut T| first.is_null() || before(first) == skew;
        match len >= 4 * MOST && skew % B == 0 && self.first[..lanes].iter().all(same) {
            true => skew % lanes,
            false => 0,
        }
    }

    /// Nothing is written to the lanes of these bits.
    #[inline(always)]
    pub(crate) fn leave(&mut self, lanes: u32) {
        if lanes != 0 {
            let first = self.first.iter_mut().enumerate().filter(|(lane, _)| lanes & (1 << lane) != 0);
            first.for_each(|(_, first)| *first = core::ptr::null_mut());
        }
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

/// [`read`] of the lower triangle of matrices of order `n`, a multiple of [`B`], whose rows lie `step` apart: blocks follow one another as quads do.
///
/// # Safety
/// As [`read`].
#[inline(always)]
pub(crate) unsafe fn read_blocks<T: Float, S: Simd<T>>(
    n: usize,
    scale: &[T; MOST],
    from: &Lanes<*const T>,
    step: isize,
    to: *mut T,
) {
    // SAFETY: as in `read`.
    unsafe {
        let scale = S::load(scale.as_ptr());
        let (rows, mut to) = (from.first.as_ptr(), to);
        let mut line = 0;
        for i in 0..n / B {
            for row in 0..B {
                let mut at = to.add(row * S::LANES);
                for j in 0..=i {
                    interleave::<T, S>(at, B * S::LANES, rows, line + (j * B) as isize, B, scale);
                    at = at.add(B * B * S::LANES);
                }
                line += step;
            }
            to = to.add((i + 1) * B * B * S::LANES);
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

/// Fetches, a few lines at a time while a group is computed, where its outputs go and what another group reads: all of a group's memory is
/// touched once, in many short stretches, which hardware prefetchers do not follow.
pub(crate) struct Ahead<T> {
    out: *const *mut T,
    next: *const *const T,
    /// Elements of a stretch: a matrix, or all of a group's if they follow one another.
    len: usize,
    /// How many stretches are left.
    stretches: usize,
    at: usize,
    each: usize,
}

impl<T> Ahead<T> {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Ahead { out: core::ptr::null(), next: core::ptr::null(), len: 0, stretches: 0, at: 0, each: 0 }
    }

    /// For matrices of order `n`, in `steps` steps, each of which reads the pointers.
    #[inline(always)]
    pub(crate) fn new(n: usize, lanes: usize, steps: usize, out: &Lanes<*mut T>, next: &Lanes<*const T>) -> Self {
        let whole = Lines::Rows(n as isize);
        if out.lines() != whole || next.lines() != whole {
            return Ahead::none();
        }
        let (out, next, len) = (&out.first, &next.first, n * n);
        let each = (len * lanes).div_ceil(line::<T>() * steps.max(1));
        // Of a group that is not full, lanes without a matrix are not where they would follow.
        let follow = |first: usize, last: usize| last.wrapping_sub(first) == (lanes - 1) * len * size_of::<T>();
        let joined = follow(out[0].addr(), out[lanes - 1].addr()) && follow(next[0].addr(), next[lanes - 1].addr());
        let (stretches, len) = if joined { (1, lanes * len) } else { (lanes, len) };
        Ahead { out: out.as_ptr(), next: next.as_ptr(), len, stretches, at: 0, each }
    }

    /// One step.
    ///
    /// # Safety
    /// The lanes given to [`new`](Ahead::new) are still there.
    #[inline(always)]
    pub(crate) unsafe fn step(&mut self) {
        let (mut left, mut at) = (self.each, self.at);
        while left > 0 && self.stretches > 0 {
            let lines = (self.len - at).div_ceil(line::<T>()).min(left);
            // SAFETY: the caller's contract; there are no more stretches than lanes.
            let (out, next) = unsafe { (*self.out.add(self.stretches - 1), *self.next.add(self.stretches - 1)) };
            for _ in 0..lines {
                prefetch_l2(out.wrapping_add(at));
                prefetch_l2(next.wrapping_add(at));
                at += line::<T>();
            }
            left -= lines;
            if at >= self.len {
                (self.stretches, at) = (self.stretches - 1, 0);
            }
        }
        self.at = at;
    }
}
