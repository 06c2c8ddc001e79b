//! One matrix in each lane: up to LANES matrices of one shape are interleaved, so that a vector holds the same entry of all of them, and undone.
//!
//! ```text
//! matrices                         buffer, entry by entry
//!   A: a00 a01 ..   a10 a11 ..       [a00 b00 c00 ..] [a01 b01 c01 ..] ..     LANES elements each, aligned
//!   B: b00 b01 ..   b10 b11 ..
//! ```
//!
//! Where the entries of a row, or of a column, follow one another, squares of LANES go through registers; all other strides are read
//! and written entry by entry.

use crate::engine::epilogue::Triangle;
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};
use core::ops::Range;
use num_traits::Float;

/// The most lanes of any instruction set.
pub(crate) const MOST: usize = 16;

/// Which vector of the buffer holds entry `(i, j)`.
pub(crate) trait Layout: Copy {
    fn at(self, i: usize, j: usize) -> usize;
    /// Where a symmetric matrix's entry `(i, j)`, `i >= j`, is stored a second time.
    fn mirrored(self, i: usize, j: usize) -> Option<usize>;
    /// Where a symmetric matrix's entry, of either triangle, is found.
    fn symmetric(self, i: usize, j: usize) -> usize;
}

/// Rows of `.0` vectors: `[rows][columns][LANES]`. Symmetric matrices are stored full.
#[derive(Clone, Copy)]
pub(crate) struct RowMajor(pub(crate) usize);

impl Layout for RowMajor {
    #[inline(always)]
    fn at(self, i: usize, j: usize) -> usize {
        i * self.0 + j
    }
    #[inline(always)]
    fn mirrored(self, i: usize, j: usize) -> Option<usize> {
        Some(j * self.0 + i)
    }
    #[inline(always)]
    fn symmetric(self, i: usize, j: usize) -> usize {
        i * self.0 + j
    }
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
        let every = |test: &dyn Fn(&[isize; 2]) -> bool| strides.iter().all(test);
        match () {
            () if every(&|&s| s == [cols as isize, 1]) => Lines::All,
            () if every(&|s| s[1] == 1) => Lines::Rows,
            () if every(&|s| s[0] == 1) => Lines::Columns,
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

    /// Nothing is written to these lanes.
    pub(crate) fn leave(&mut self, lane: usize) {
        self.first[lane] = core::ptr::null_mut();
    }
}

/// What is read of a matrix.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a, T> {
    /// All entries.
    All,
    /// The lower triangle of `scale A + damping I`, each lane its own.
    Damped { scale: &'a [T; MOST], damping: &'a [T; MOST] },
}

#[repr(C, align(64))]
struct Stage<T>([[T; MOST]; MOST]);

/// Interleaves matrices of `shape`.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: the sources are readable, `to` is writable wherever the layout puts
/// an entry.
#[inline(always)]
pub(crate) unsafe fn read<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    shape: [usize; 2],
    part: Part<'_, T>,
    from: &Lanes<*const T>,
    to: *mut T,
) {
    let [m, n] = shape;
    let mut stage = Stage([[T::zero(); MOST]; MOST]);
    let stage = stage.0.as_mut_ptr().cast::<T>();
    // SAFETY: the stage holds a square of LANES; stretches end where the matrix does.
    unsafe {
        let lines = from.lines(S::LANES, n);
        match lines {
            Lines::All if n < S::LANES => {
                let (mut i, mut j) = (0, 0);
                for start in (0..m * n).step_by(S::LANES) {
                    let width = S::LANES.min(m * n - start);
                    S::interleave(stage, from.first.as_ptr(), start, width);
                    for e in 0..width {
                        put::<T, S, L>(layout, (i, j), part, stage.add(e * S::LANES), to);
                        (i, j) = if j + 1 == n { (i + 1, 0) } else { (i, j + 1) };
                    }
                }
            }
            Lines::Neither => {
                for i in 0..m {
                    for j in 0..n {
                        for lane in 0..S::LANES {
                            let [rs, cs] = from.strides[lane];
                            *stage.add(lane) = *from.first[lane].offset(i as isize * rs + j as isize * cs);
                        }
                        put::<T, S, L>(layout, (i, j), part, stage, to);
                    }
                }
            }
            _ => {
                let along_rows = lines != Lines::Columns;
                let mut pointers = from.first;
                for line in 0..if along_rows { m } else { n } {
                    let range = match (part, along_rows) {
                        (Part::All, true) => 0..n,
                        (Part::All, false) => 0..m,
                        (Part::Damped { .. }, true) => 0..line + 1,
                        (Part::Damped { .. }, false) => line..m,
                    };
                    for start in range.clone().step_by(S::LANES) {
                        let width = S::LANES.min(range.end - start);
                        S::interleave(stage, pointers.as_ptr(), start, width);
                        for e in 0..width {
                            let at = if along_rows { (line, start + e) } else { (start + e, line) };
                            put::<T, S, L>(layout, at, part, stage.add(e * S::LANES), to);
                        }
                    }
                    for (pointer, strides) in pointers.iter_mut().zip(&from.strides) {
                        *pointer = pointer.wrapping_offset(strides[usize::from(!along_rows)]);
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`read`]; `from` holds the vector of entry `(i, j)`.
#[inline(always)]
unsafe fn put<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    (i, j): (usize, usize),
    part: Part<'_, T>,
    from: *const T,
    to: *mut T,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut vector = S::load(from);
        if let Part::Damped { scale, damping } = part {
            if i < j {
                return;
            }
            let scale = S::load(scale.as_ptr());
            vector = if i == j { S::fma(vector, scale, S::load(damping.as_ptr())) } else { S::mul(vector, scale) };
            if let Some(at) = layout.mirrored(i, j) {
                S::store(to.add(at * S::LANES), vector);
            }
        }
        S::store(to.add(layout.at(i, j) * S::LANES), vector);
    }
}

/// What is written of a matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All entries.
    General,
    /// This part of a symmetric matrix.
    Symmetric(Triangle),
}

/// Undoes the interleaving of matrices of `shape`; lanes with a null pointer are left as they are.
///
/// # Safety
/// As [`read`], the targets writable and `from` readable.
#[inline(always)]
pub(crate) unsafe fn write<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    shape: [usize; 2],
    kind: Shape,
    from: *const T,
    to: &Lanes<*mut T>,
) {
    let [m, n] = shape;
    let mut stage = Stage([[T::zero(); MOST]; MOST]);
    let stage = stage.0.as_mut_ptr().cast::<T>();
    let lower = kind == Shape::Symmetric(Triangle::Lower);
    // SAFETY: as in `read`.
    unsafe {
        let lines = to.lines(S::LANES, n);
        match lines {
            Lines::All if n < S::LANES && !lower => {
                let (mut i, mut j) = (0, 0);
                for start in (0..m * n).step_by(S::LANES) {
                    let width = S::LANES.min(m * n - start);
                    for e in 0..width {
                        take::<T, S, L>(layout, (i, j), kind, from, stage.add(e * S::LANES));
                        (i, j) = if j + 1 == n { (i + 1, 0) } else { (i, j + 1) };
                    }
                    S::deinterleave(to.first.as_ptr(), start, width, stage);
                }
            }
            Lines::Neither => {
                for i in 0..m {
                    for j in 0..if lower { i + 1 } else { n } {
                        take::<T, S, L>(layout, (i, j), kind, from, stage);
                        for lane in (0..S::LANES).filter(|&lane| !to.first[lane].is_null()) {
                            let [rs, cs] = to.strides[lane];
                            *to.first[lane].offset(i as isize * rs + j as isize * cs) = *stage.add(lane);
                        }
                    }
                }
            }
            _ => {
                let along_rows = lines != Lines::Columns;
                let mut pointers = to.first;
                for line in 0..if along_rows { m } else { n } {
                    let range: Range<usize> = match (lower, along_rows) {
                        (false, true) => 0..n,
                        (false, false) => 0..m,
                        (true, true) => 0..line + 1,
                        (true, false) => line..m,
                    };
                    for start in range.clone().step_by(S::LANES) {
                        let width = S::LANES.min(range.end - start);
                        for e in 0..width {
                            let at = if along_rows { (line, start + e) } else { (start + e, line) };
                            take::<T, S, L>(layout, at, kind, from, stage.add(e * S::LANES));
                        }
                        S::deinterleave(pointers.as_ptr(), start, width, stage);
                    }
                    for (pointer, strides) in pointers.iter_mut().zip(&to.strides) {
                        if !pointer.is_null() {
                            *pointer = pointer.wrapping_offset(strides[usize::from(!along_rows)]);
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`write`]; `to` has room for a vector.
#[inline(always)]
unsafe fn take<T: Float, S: Simd<T>, L: Layout>(
    layout: L,
    (i, j): (usize, usize),
    kind: Shape,
    from: *const T,
    to: *mut T,
) {
    let at = if kind == Shape::General { layout.at(i, j) } else { layout.symmetric(i, j) };
    // SAFETY: the caller's contract.
    unsafe { S::store(to, S::load(from.add(at * S::LANES))) }
}
