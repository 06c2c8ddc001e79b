//! One slab of depth of one macro-tile: the two loops around the microkernel.

use super::kernels::Kernels;
use super::microkernel::{Depths, kind};
use crate::simd::line;

/// Panels in memory, `step` elements apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<T> {
    pub(crate) ptr: *const T,
    pub(crate) step: usize,
    /// Whether the next slab follows on this one in every panel: then it is asked for while this one is worked on.
    pub(crate) continued: bool,
}

/// A left operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<T> {
    Packed(Panels<T>),
    /// Read where it lies.
    Rows(Rows<T>),
}

/// Indices of an operand that are contiguous along the depth.
#[derive(Clone, Copy, Debug)]
pub struct Rows<T> {
    pub(crate) ptr: *const T,
    /// Elements from one index to the next.
    pub(crate) step: isize,
}

impl<T> Left<T> {
    /// Where row `i` begins.
    fn at(&self, i: usize, nr: usize) -> *const T {
        match self {
            Left::Packed(panels) => panels.ptr.wrapping_add(i / nr * panels.step + i % nr),
            Left::Rows(rows) => rows.ptr.wrapping_offset(i as isize * rows.step),
        }
    }
}

/// Which register tiles of a macro-tile are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Full,
    /// Those that meet the lower triangle, where row 0 is as many indices behind column 0 as said.
    Lower(usize),
    /// Those that meet the upper triangle, where row 0 and column 0 are one index.
    Upper,
}

/// One slab: `tile[rows][cols] (+)= sum_p left[p][rows] right[p][cols]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slab<T> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) depth: usize,
    pub(crate) left: Left<T>,
    pub(crate) right: Panels<T>,
    pub(crate) part: Part,
}

impl<T: Copy> Slab<T> {
    /// Adds it to a tile of leading dimension `ld`, or overwrites the tile if `fresh`.
    ///
    /// # Safety
    /// `kernels` belong to an ISA this CPU has. Panels hold `depth` rows of nr, rows of a left operand that is not packed `depth` elements; the
    /// tile has room for `rows` rows of columns up to whole panels.
    pub(crate) unsafe fn add(&self, tile: *mut T, ld: usize, fresh: bool, kernels: &Kernels<T>) {
        let (nr, mr) = (kernels.nr, kernels.mr);
        let mut depths = Depths::dense(self.depth, nr);
        let kind = match self.left {
            Left::Packed(_) => kind::PACKED,
            Left::Rows(rows) => {
                depths.row_step = rows.step;
                kind::ROWS
            }
        };
        let mut ahead = Ahead::new(self, nr, mr);
        for j in (0..self.cols).step_by(nr) {
            let width = nr.min(self.cols - j);
            // To the step.
            let (mut i, end) = match self.part {
                Part::Full => (0, self.rows),
                Part::Lower(behind) => (j.saturating_sub(behind) / mr * mr, self.rows),
                Part::Upper => (0, self.rows.min(j + width)),
            };
            while i < end {
                let step = kernels.rows_step(self.rows - i);
                // To the vector.
                let (skip, width) = match self.part {
                    Part::Full => (0, width),
                    Part::Lower(behind) => (0, width.min((i + behind + step).saturating_sub(j))),
                    Part::Upper => {
                        let skip = i.saturating_sub(j) / kernels.lanes * kernels.lanes;
                        (skip, width - skip)
                    }
                };
                if width == 0 {
                    // A short step that ends above the diagonal.
                    i += step;
                    continue;
                }
                let l = self.left.at(i, nr);
                // SAFETY: the caller's contract.
                unsafe {
                    let r = self.right.ptr.add(j / nr * self.right.step + skip);
                    depths.next = ahead.next().unwrap_or(r.cast());
                    // The same rows' next slab, once a slab.
                    depths.next_rows = l.wrapping_add(if j == 0 { self.depth } else { 0 }).cast();
                    kernels.tile_of(kind, step, width)(&depths, l, r, tile.add(i * ld + j + skip), ld, fresh);
                }
                i += step;
            }
        }
    }
}

/// The next slab's lines, shared out evenly over this slab's microkernels: what they read first otherwise comes from the last-level
/// cache at the pace of its latency.
struct Ahead<T> {
    sides: [(Panels<T>, usize); 2],
    /// Lines of one panel's slab, and of all.
    panel: usize,
    lines: usize,
    calls: usize,
    call: usize,
    nr: usize,
    depth: usize,
}

impl<T: Copy> Ahead<T> {
    fn new(slab: &Slab<T>, nr: usize, mr: usize) -> Self {
        let side = |panels: Panels<T>, extent: usize| (panels, if panels.continued { extent.div_ceil(nr) } else { 0 });
        let left = match slab.left {
            Left::Packed(panels) => side(panels, slab.rows),
            // Hardware prefetchers follow a few rows.
            Left::Rows(_) => side(slab.right, 0),
        };
        let sides = [left, side(slab.right, slab.cols)];
        let panel = nr * slab.depth / line::<T>();
        let lines = (sides[0].1 + sides[1].1) * panel;
        let calls = slab.cols.div_ceil(nr) * slab.rows.div_ceil(mr);
        Ahead { sides, panel, lines, calls, call: 0, nr, depth: slab.depth }
    }

    /// Where this call begins, if anything is to come.
    fn next(&mut self) -> Option<*const u8> {
        if self.lines == 0 {
            return None;
        }
        let at = self.lines * self.call / self.calls;
        self.call += 1;
        let (index, within) = (at / self.panel, at % self.panel * line::<T>() + self.nr * self.depth);
        let [(left, count), (right, _)] = self.sides;
        let panel = match index.checked_sub(count) {
            None => left.ptr.wrapping_add(index * left.step),
            Some(index) => right.ptr.wrapping_add(index * right.step),
        };
        Some(panel.wrapping_add(within).cast())
    }
}
