//! The blocks of the three sweeps: what one task does.
//!
//! ```text
//! factor(J, I)    L_IJ   from  A_IJ - sum_(K<J) L_IK L_JK^T,    substituted by strips against L_JJ; I = J: factored by strips
//! invert(I)       Y_IJ   from  I_IJ - sum_(K>J) Y_IK L_KJ,      J descending, substituted by strips: keeps |Y L - I| small
//! update(I, J)    A_IJ   less  sum_(K<C) L_IK L_JK^T,           C columns of blocks of a strip
//! multiply(I, J)  X_IJ   =     sum_(K>=I) Y_KI^T Y_KJ
//! ```
//!
//! Each sum is a macro-tile on panels that lie packed already; `L` and `Y` are written packed both ways (see [`Packed`]) and read by every
//! later task. Macro-tiles of the first two have the columns of the result as rows and its rows in the lanes, as panels do. Rows beyond
//! the matrix, up to a multiple of mr, continue it by the identity.

use super::Pivot;
use super::packed::Packed;
use super::strips::Strip;
use crate::element::Element;
use crate::engine::epilogue::{Blend, Epilogue, Shared, StoreSymmetric, Tile};
use crate::engine::kernels::Kernels;
use crate::engine::microkernel::Depths;
use crate::engine::pack::{Pack, Strided};
use crate::engine::slab::{Left, Panels, Part, Slab};
use crate::engine::slabs_of;
use crate::simd::{line, prefetch_l2};
use crate::view::MatRef;
use core::ops::Range;

/// What all tasks of one matrix share.
pub(super) struct Tiles<'a, T: Element> {
    pub(super) kernels: &'static Kernels<T>,
    /// Rows of the matrix, and these padded to a multiple of mr.
    pub(super) n: usize,
    pub(super) padded: usize,
    /// Side of a block, a multiple of nr.
    pub(super) side: usize,
    pub(super) a: MatRef<'a, T>,
    pub(super) scale: T,
    pub(super) damping: T,
    pub(super) l: Packed<'a, T>,
    pub(super) y: Option<Packed<'a, T>>,
    pub(super) reciprocals: Reciprocals<T>,
    /// Where a triangular result is written, if anywhere.
    pub(super) triangle: Option<Shared<'a, T>>,
    pub(super) product: Option<StoreSymmetric<'a, T>>,
}

/// One over each pivot's root.
#[derive(Clone, Copy)]
pub(super) struct Reciprocals<T>(pub(super) *mut T);

// SAFETY: as Packed: written by the task of a diagonal block, read by tasks that wait for it.
unsafe impl<T: Send> Sync for Reciprocals<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Reciprocals<T> {}

/// Adds the panels' product over `depths` to a macro-tile, slab by slab. Returns whether the tile is still to be written first.
///
/// # Safety
/// As [`Slab::add`], for panels at every depth.
unsafe fn add<T: Element>(
    slab: Slab<T>,
    panels: &dyn Fn(usize, bool) -> [Panels<T>; 2],
    depths: Range<usize>,
    (tile, ld): (*mut T, usize),
    mut fresh: bool,
    kernels: &Kernels<T>,
) -> bool {
    for part in slabs_of(depths.clone()) {
        let [left, right] = panels(part.start, part.end < depths.end);
        // SAFETY: the caller's contract.
        unsafe { Slab { depth: part.len(), left: Left::Packed(left), right, ..slab }.add(tile, ld, fresh, kernels) };
        fresh = false;
    }
    fresh
}

/// Asks for contiguous elements, into L2: what a task reads or writes after its product, whose time hides the wait.
fn ask<T>(from: *const T, len: usize) {
    (0..len + line::<T>()).step_by(line::<T>()).for_each(|e| prefetch_l2(from.wrapping_add(e)));
}

impl<T: Element> Tiles<'_, T> {
    fn block(&self, index: usize) -> Range<usize> {
        index * self.side..self.padded.min((index + 1) * self.side)
    }

    /// Starts and ends of the panels of `rows`.
    fn panels(&self, rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (nr, end) = (self.kernels.nr, rows.end);
        rows.clone().step_by(nr).map(move |p| p..end.min(p + nr))
    }

    /// A slab of a macro-tile, its depth and panels still open.
    fn slab(&self, rows: usize, cols: usize, part: Part) -> Slab<T> {
        let none = Panels { ptr: core::ptr::null(), step: 0, continued: false };
        Slab { rows, cols, depth: 0, left: Left::Packed(none), right: none, part }
    }

    /// Asks for a block of A.
    fn ask_for_given(&self, rows: &Range<usize>, cols: &Range<usize>) {
        let [row_step, col_step] = self.a.strides();
        // Lines of whichever axis is contiguous.
        let (lines, step, at, len) = match col_step {
            1 => (rows, row_step, cols.start as isize, cols.len()),
            _ => (cols, col_step, rows.start as isize * row_step, rows.len()),
        };
        for l in lines.start..lines.end.min(self.n) {
            ask(self.a.as_ptr().wrapping_offset(l as isize * step + at), len);
        }
    }

    /// Asks for where a block will be written, by rows and by columns.
    fn ask_for_panels(&self, to: &Packed<'_, T>, rows: &Range<usize>, cols: &Range<usize>) {
        let nr = self.kernels.nr;
        for panel in self.panels(rows) {
            ask(to.by_rows(panel.start, cols.start), nr * (cols.end.min(panel.start + nr) - cols.start));
        }
        if self.y.is_some() {
            for panel in self.panels(cols) {
                let from = rows.start.max(panel.start);
                ask(to.by_cols(panel.start, from), nr * (rows.end - from));
            }
        }
    }

    /// Columns `cols` of `panel`'s rows of `scale A + damping I` into the packed rows of L.
    ///
    /// # Safety
    /// The block belongs to the caller.
    pub(super) unsafe fn load(&self, panel: &Range<usize>, cols: &Range<usize>) {
        let nr = self.kernels.nr;
        let to = self.l.by_rows(panel.start, cols.start);
        // SAFETY: the caller's contract; the panel's part by rows reaches to its own diagonal.
        let lines = unsafe { core::slice::from_raw_parts_mut(to, cols.len() * nr) };
        let real = self.n.clamp(cols.start, cols.end) - cols.start;
        let (given, beyond) = lines.split_at_mut(real * nr);
        if real > 0 {
            Strided::rows(self.a).pack(given, panel.start, cols.start, self.kernels);
        }
        beyond.fill(T::zero());
        if self.scale != T::one() {
            // SAFETY: the kernels belong to an ISA this CPU has; lines onto themselves.
            unsafe { (self.kernels.blend)(to, to, lines.len(), self.scale, T::zero()) };
        }
        for (line, col) in lines.chunks_exact_mut(nr).zip(cols.clone()) {
            if let Some(lane) = col.checked_sub(panel.start) {
                line[..lane].fill(T::zero());
                line[lane] = if col < self.n { line[lane] + self.damping } else { T::one() };
            }
        }
    }

    /// One block of L, for the columns of block `j` and the rows of block `i >= j`.
    ///
    /// # Safety
    /// Called once for each block, after all blocks to its left in both block rows and, below the diagonal, the diagonal block; `tile` has
    /// `side²` elements.
    pub(super) unsafe fn factor(&self, j: usize, i: usize, tile: *mut T) -> Result<(), Pivot<T>> {
        let (kernels, nr, mr, ld) = (self.kernels, self.kernels.nr, self.kernels.mr, self.side);
        let (cols, rows) = (self.block(j), self.block(i));
        self.ask_for_given(&rows, &cols);
        self.ask_for_panels(&self.l, &rows, &cols);
        let part = if i == j { Part::Upper } else { Part::Full };
        let panels =
            |depth, more| [self.l.row_panels(cols.start, depth, more), self.l.row_panels(rows.start, depth, more)];
        // SAFETY (all blocks): the caller's contract; every access stays inside the blocks named.
        // SAFETY: blocks to the left are finished.
        let fresh =
            unsafe { add(self.slab(cols.len(), rows.len(), part), &panels, 0..cols.start, (tile, ld), true, kernels) };
        for panel in self.panels(&rows) {
            let cols = cols.start..cols.end.min(panel.start + nr);
            // SAFETY: this block is the caller's.
            unsafe { self.load(&panel, &cols) };
            for c in cols.clone().step_by(mr) {
                // Whole vectors above the diagonal stay zero.
                let skip = c.saturating_sub(panel.start) / kernels.lanes * kernels.lanes;
                let width = panel.len() - skip;
                let sums = tile.wrapping_add((c - cols.start) * ld + panel.start - rows.start + skip);
                let x = self.l.by_rows(panel.start, c).wrapping_add(skip);
                let strip = Strip {
                    x,
                    x_step: nr as isize,
                    given: true,
                    sums,
                    sums_step: ld as isize,
                    l: self.l.by_rows(c, c),
                    row: 1,
                    col: nr as isize,
                    reciprocals: self.reciprocals.0.wrapping_add(c),
                    reciprocals_step: 1,
                };
                let mut depths = Depths::dense(c - cols.start, nr);
                depths.next = x.cast();
                let (left, right) = (self.l.by_rows(c, cols.start), self.l.by_rows(panel.start, cols.start));
                let (factor, solve) = kernels.strips(width);
                // SAFETY: earlier strips of this block, and its diagonal block, are finished.
                let done = unsafe {
                    kernels.tile(mr, width)(&depths, left, right.wrapping_add(skip), sums, ld, fresh);
                    match c.checked_sub(panel.start) {
                        Some(lane) => factor(&strip, lane - skip),
                        None => {
                            solve(&strip);
                            mr
                        }
                    }
                };
                if done < mr {
                    let index = c + done;
                    // SAFETY: the pivot has been left where the root would stand.
                    return Err(Pivot { index, value: unsafe { *self.l.by_rows(index, index) } });
                }
            }
        }
        if self.y.is_some() {
            // SAFETY: the block is finished.
            unsafe { self.l.by_cols_too(rows.clone(), cols.clone(), kernels) };
        } else {
            // SAFETY: the block is finished, and this task's in the output too.
            unsafe { self.store(&self.l, &rows, &cols) };
        }
        Ok(())
    }

    /// Copies a finished block to the triangular output.
    ///
    /// # Safety
    /// The block has been written by rows; its entries in the output belong to the caller.
    unsafe fn store(&self, from: &Packed<'_, T>, rows: &Range<usize>, cols: &Range<usize>) {
        let (Some(out), nr) = (&self.triangle, self.kernels.nr) else { return };
        for panel in self.panels(rows) {
            let (end, cols) = (panel.end.min(self.n), cols.start..cols.end.min(panel.start).min(self.n));
            // SAFETY: the caller's contract: a rectangle left of the diagonal, then the panel's own triangle, entry by entry.
            unsafe {
                if let Some(step) = out.contiguous_rows() {
                    let (to, from) = (out.at(panel.start, cols.start), from.by_rows(panel.start, cols.start));
                    (self.kernels.transpose)(to, step, from, nr as isize, cols.len(), end - panel.start);
                } else {
                    for j in cols {
                        (panel.start..end).for_each(|i| *out.at(i, j) = *from.by_rows(i, j));
                    }
                }
            }
        }
        for panel in self.panels(rows).filter(|panel| cols.contains(&panel.start)) {
            for i in panel.start..panel.end.min(self.n) {
                // SAFETY: the caller's contract.
                (panel.start..=i).for_each(|j| unsafe { *out.at(i, j) = *from.by_rows(i, j) });
            }
        }
    }

    /// Subtracts a finished strip of `columns` block columns from block (i, j) of the rest, in the output, which takes `scale A + damping I` if that
    /// is another matrix.
    ///
    /// # Safety
    /// Called once for each block, after all of the strip; `tile` has `side²` elements.
    pub(super) unsafe fn update(&self, columns: usize, (i, j): (usize, usize), tile: *mut T) {
        let (Some(out), kernels, ld) = (&self.triangle, self.kernels, self.side) else { return };
        let (rows, cols) = (self.block(i), self.block(j));
        let part = if i == j { Part::Lower(0) } else { Part::Full };
        let panels =
            |depth, more| [self.l.row_panels(rows.start, depth, more), self.l.row_panels(cols.start, depth, more)];
        let moved = !core::ptr::eq(self.a.as_ptr(), out.at(0, 0));
        // SAFETY: the caller's contract; the tile has been written.
        let data = unsafe {
            add(self.slab(rows.len(), cols.len(), part), &panels, 0..columns * self.side, (tile, ld), true, kernels);
            core::slice::from_raw_parts(tile, rows.len() * ld)
        };
        for (i, line) in (rows.start..rows.end.min(self.n)).zip(data.chunks_exact(ld)) {
            let cols = cols.start..cols.end.min(i + 1);
            // SAFETY: entries of the lower triangle that are this task's.
            unsafe {
                if moved {
                    for j in cols.clone() {
                        let damping = if i == j { self.damping } else { T::zero() };
                        *out.at(i, j) = self.scale * self.a.at([i, j]) + damping;
                    }
                }
                out.blend((i, cols.start), &line[..cols.len()], Blend::add(-T::one()), kernels);
            }
        }
    }

    /// What is left after a strip of `first` columns, to be factored in place.
    pub(super) fn rest(self, first: usize) -> Self {
        let rest = self.n - first;
        let triangle = self.triangle.as_ref().map(|out| out.from(first, first));
        // SAFETY: the memory of the output, which the caller has; each task reads its block before it writes it.
        let a = triangle.as_ref().map_or(self.a, |out| unsafe { out.read([rest; 2]) });
        let (one, zero) = (T::one(), T::zero());
        Tiles { n: rest, padded: self.padded - first, a, scale: one, damping: zero, triangle, ..self }
    }

    /// Takes `a`'s lower triangle for L.
    pub(super) fn take_factor(&self) {
        let all = 0..self.padded;
        for panel in self.panels(&all) {
            // SAFETY: no task has begun; the panel's part by rows reaches to its diagonal.
            unsafe { self.load(&panel, &(0..panel.end)) };
        }
        // SAFETY: as above.
        unsafe {
            self.l.by_cols_too(all.clone(), all.clone(), self.kernels);
            all.for_each(|i| *self.reciprocals.0.add(i) = (*self.l.by_rows(i, i)).recip());
        }
    }

    /// The rows of block `i` of Y.
    ///
    /// # Safety
    /// Called once for each block, after all blocks of L in rows up to its own; `tile` has `side²` elements.
    pub(super) unsafe fn invert(&self, i: usize, tile: *mut T) {
        let Some(y) = &self.y else { return };
        let (kernels, ld) = (self.kernels, self.side);
        let rows = self.block(i);
        for j in (0..=i).rev() {
            let cols = self.block(j);
            self.ask_for_panels(y, &rows, &cols);
            let panels =
                |depth, more| [self.l.col_panels(cols.start, depth, more), y.row_panels(rows.start, depth, more)];
            // SAFETY (all blocks): the caller's contract; Y's blocks right of this one are finished.
            // SAFETY: as above.
            let fresh = unsafe {
                let slab = self.slab(cols.len(), rows.len(), Part::Full);
                add(slab, &panels, cols.end..rows.start.max(cols.end), (tile, ld), true, kernels)
            };
            for panel in self.panels(&rows) {
                let tile = tile.wrapping_add(panel.start - rows.start);
                let mut fresh = fresh;
                if j < i {
                    // Rows of Y end at the diagonal, panel by panel.
                    let slab = self.slab(cols.len(), panel.len(), Part::Full);
                    let panels = |depth, more| {
                        [self.l.col_panels(cols.start, depth, more), y.row_panels(panel.start, depth, more)]
                    };
                    // SAFETY: as above.
                    fresh = unsafe { add(slab, &panels, rows.start..panel.end, (tile, ld), fresh, kernels) };
                }
                // SAFETY: as above.
                unsafe { self.substitute(y, &panel, cols.start..cols.end.min(panel.end), tile, fresh) };
            }
            // SAFETY: the block is finished.
            unsafe {
                y.by_cols_too(rows.clone(), cols.clone(), kernels);
                self.store(y, &rows, &cols);
            }
        }
    }

    /// Columns `cols` of one panel of rows of Y, by strips from the last column on.
    ///
    /// # Safety
    /// As [`invert`](Tiles::invert): the tile holds what later columns contribute, unless `fresh`.
    unsafe fn substitute(
        &self,
        y: &Packed<'_, T>,
        panel: &Range<usize>,
        cols: Range<usize>,
        tile: *mut T,
        fresh: bool,
    ) {
        let (kernels, nr, mr, ld) = (self.kernels, self.kernels.nr, self.kernels.mr, self.side);
        // Of the identity, what is not zero lies in the panel's own columns; there lanes above the diagonal must be zero too.
        let own = panel.start.max(cols.start)..cols.end;
        for col in own.clone() {
            // SAFETY: a depth of the panel that is to be computed.
            let lanes = unsafe { core::slice::from_raw_parts_mut(y.by_rows(panel.start, col), nr) };
            lanes.fill(T::zero());
            lanes[col - panel.start] = T::one();
        }
        for c in cols.clone().step_by(mr).rev() {
            let skip = c.saturating_sub(panel.start) / kernels.lanes * kernels.lanes;
            let width = panel.len() - skip;
            let last = c + mr - 1;
            let sums = tile.wrapping_add((c - cols.start) * ld + skip);
            let strip = Strip {
                x: y.by_rows(panel.start, last).wrapping_add(skip),
                x_step: -(nr as isize),
                given: own.contains(&c),
                sums: sums.wrapping_add((mr - 1) * ld),
                sums_step: -(ld as isize),
                l: self.l.by_rows(last, last),
                row: -(nr as isize),
                col: -1,
                reciprocals: self.reciprocals.0.wrapping_add(last),
                reciprocals_step: -1,
            };
            let mut depths = Depths::dense(cols.end - c - mr, nr);
            depths.next = strip.x.cast();
            // Past the last column nothing is read.
            let from = (c + mr).min(cols.end - 1);
            let (left, right) = (self.l.by_cols(c, from), y.by_rows(panel.start, from).wrapping_add(skip));
            // SAFETY: the caller's contract; strips of later columns are finished.
            unsafe {
                kernels.tile(mr, width)(&depths, left, right, sums, ld, fresh);
                kernels.strips(width).1(&strip);
            }
        }
    }

    /// The block of `Y^T Y` in block row `i` and block column `j <= i`.
    ///
    /// # Safety
    /// Called once for each block, after all blocks of Y in rows from `i` on; `tile` has `side²` elements.
    pub(super) unsafe fn multiply(&self, i: usize, j: usize, tile: *mut T) {
        let (Some(y), Some(product)) = (&self.y, &self.product) else { return };
        let (kernels, ld) = (self.kernels, self.side);
        let (rows, cols) = (self.block(i), self.block(j));
        let part = |from: usize| if i == j { Part::Lower(from - cols.start) } else { Part::Full };
        // Columns of Y begin at the diagonal, panel by panel.
        for panel in self.panels(&rows) {
            let panels = |depth, more| [y.col_panels(panel.start, depth, more), y.col_panels(cols.start, depth, more)];
            let slab = self.slab(panel.len(), cols.len(), part(panel.start));
            let tile = tile.wrapping_add((panel.start - rows.start) * ld);
            // SAFETY: the caller's contract.
            unsafe { add(slab, &panels, panel.start..rows.end, (tile, ld), true, kernels) };
        }
        let panels = |depth, more| [y.col_panels(rows.start, depth, more), y.col_panels(cols.start, depth, more)];
        // SAFETY: the caller's contract; the tile has been written.
        let data = unsafe {
            let slab = self.slab(rows.len(), cols.len(), part(rows.start));
            add(slab, &panels, rows.end..self.padded, (tile, ld), false, kernels);
            core::slice::from_raw_parts(tile, rows.len() * ld)
        };
        let clip = |range: &Range<usize>| range.end.min(self.n) - range.start;
        product.apply(&Tile {
            row: rows.start,
            col: cols.start,
            rows: clip(&rows),
            cols: clip(&cols),
            data,
            ld,
            kernels,
        });
    }
}
