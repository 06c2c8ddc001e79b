//! Inner products of the gradients of two batches, `<g_r, g'_s> = sum_tu (x_rt . x'_su) (e_rt . e'_su)`, a tile of rows at a time.
//!
//! ```text
//! for each window of the right batch's rows, packed at once                      a few hundred rows: bounds memory, whatever N
//!     for each strip of the left batch's rows, on whichever thread is free       read where it lies, or packed by its task a slab at a time
//!         xs = X X'^T of the tile,  es = E E'^T of the tile                      both in L2, finished before they meet
//!         es = es * xs, entry by entry, summed over the positions of each pair of rows
//!         sink(row of es), for each row
//! ```

use super::layer::Block;
use crate::element::Element;
pub(crate) use crate::engine::LEAST;
use crate::engine::kernels::Kernels;
use crate::engine::pack::Pack;
use crate::engine::slab::{Left, Panels, Part, Slab};
use crate::engine::{ALIGN, Buffers, LINE, PARALLEL_WORK, TASKS, WINDOW, aligned, slabs_of, strip_rows};
use crate::par::Par;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};

/// Rows and positions of a strip where a row has several, and how many strips there must then be: each is packed once a window, and every panel of
/// the window is read once a strip.
const STRIPS: [(usize, usize); 3] = [(96, TASKS), (48, TASKS / 4), (LEAST, 0)];
/// A window may have this part of all rows, packed, if that is more.
const PART: usize = 4;
/// Depths that a packing task takes.
const STRETCH: usize = 512;

/// One batch of a layer as operands with rows as indices.
#[derive(Clone, Copy)]
pub(crate) struct Half<'a, T: Element> {
    /// Inputs and errors.
    operands: [&'a dyn Pack<T>; 2],
    pub(crate) rows: usize,
    labels: usize,
    positions: usize,
}

impl<'a, T: Element> Half<'a, T> {
    /// `operands` are [`Block::both`] of `block`, with rows as indices.
    pub(crate) fn new<I: Element>(block: &Block<'_, I>, operands: &'a [impl Pack<T>; 2]) -> Self {
        let operands = operands.each_ref().map(|operand| operand as &dyn Pack<T>);
        Half { operands, rows: block.rows(), labels: block.labels, positions: block.positions }
    }

    /// Indices of inputs and errors that rows `rows` stand for.
    fn indices(&self, rows: &Range<usize>) -> [Range<usize>; 2] {
        let datapoints = rows.start / self.labels..rows.end.div_ceil(self.labels);
        [&datapoints, rows].map(|range| range.start * self.positions..range.end * self.positions)
    }
}

/// Takes finished rows of pairs.
pub(crate) trait Sink<T: Element>: Sync {
    /// Adds the pairs of `row` with the rows from `first` on, of window `window`.
    ///
    /// # Safety
    /// One task at a time has the tile; all rows exist.
    unsafe fn add(&self, row: usize, first: usize, window: usize, line: &[T], kernels: &Kernels<T>);
}

/// Blocks of rows of one side: strips of the left, windows of the right.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    /// Rows of a block: whole datapoints and positions of at most a tile's side, or one row.
    per: usize,
    /// Rows and positions of a tile.
    side: usize,
    positions: usize,
    labels: usize,
}

impl Cut {
    fn new<T: Element>(half: &Half<'_, T>, side: usize) -> Cut {
        let per = (side / half.positions).clamp(1, half.rows);
        let side = side.min(per * half.positions);
        Cut { rows: half.rows, per, side, positions: half.positions, labels: half.labels }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(self.per)
    }

    fn block(&self, index: usize) -> Range<usize> {
        index * self.per..self.rows.min((index + 1) * self.per)
    }

    /// Panels of a block's inputs and errors.
    fn panels(&self, nr: usize) -> [usize; 2] {
        let datapoints = if self.labels == 1 { self.per } else { (self.per - 1) / self.labels + 2 };
        [datapoints, self.per].map(|rows| (rows * self.positions).div_ceil(nr))
    }
}

/// How pairs are cut: strips by the number of threads too, which plays no part in any sum; the rest by shape and instruction set alone.
struct Plan {
    left: Cut,
    right: Cut,
    lower: bool,
    /// Depths of inputs and errors.
    depths: [usize; 2],
    nr: usize,
    work: usize,
}

impl Plan {
    fn new<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, par: Par) -> Plan {
        let (lower, nr) = (right.is_none(), T::kernels(par.isa()).nr);
        let right = right.unwrap_or(left);
        let depths = left.operands.map(|operand| operand.depth());
        let depth = (depths[0] + depths[1]).max(1);
        let positions = left.positions.saturating_mul(right.positions);
        let pairs = left.rows.saturating_mul(right.rows).saturating_mul(positions) / if lower { 2 } else { 1 };
        let indices = right.rows * right.positions;
        let window = WINDOW.max(indices.saturating_mul(depth) / PART) / depth;
        let window = window.clamp(LEAST, LINE / size_of::<T>());
        // Even windows, of whole panels.
        let window = indices.div_ceil(indices.div_ceil(window)).next_multiple_of(nr).min(LINE / size_of::<T>());
        let strip = if left.positions == 1 {
            Cut::new(left, strip_rows(left.rows, par.degree()))
        } else {
            let strips = STRIPS.map(|(side, least)| (Cut::new(left, side), least));
            strips.into_iter().find(|(cut, least)| cut.blocks() >= *least).unwrap_or(strips[0]).0
        };
        let right = Cut::new(right, window);
        Plan { left: strip, right, lower, depths, nr, work: pairs.saturating_mul(depth) }
    }

    fn par(&self, par: Par) -> Par {
        par.at_most(if self.work < PARALLEL_WORK { 1 } else { self.left.blocks() })
    }

    /// Columns of a tile in memory.
    fn ld(&self) -> usize {
        self.right.side.next_multiple_of(self.nr)
    }

    fn tile_len(&self) -> usize {
        self.ld() * self.left.side
    }

    /// Elements of a strip's slab.
    fn slab_len(&self) -> usize {
        let deepest = slabs_of(0..self.depths[0].max(self.depths[1])).map(|slab| slab.len()).next().unwrap_or(0);
        self.left.side.next_multiple_of(self.nr) * deepest
    }

    /// Elements of a window's panels of inputs, and of both.
    fn window_lens(&self) -> [usize; 2] {
        let panels = self.right.panels(self.nr);
        let x = panels[0] * self.nr * self.depths[0];
        [x, x + panels[1] * self.nr * self.depths[1]]
    }

    /// The rows that have pairs with a window: of one batch with itself those not before it.
    fn rows(&self, window: &Range<usize>) -> Range<usize> {
        (if self.lower { window.start } else { 0 })..self.left.rows
    }
}

/// Windows of the right batch.
pub(crate) fn columns<T: Element>(left: &Half<'_, T>, right: &Half<'_, T>, par: Par) -> usize {
    Plan::new(left, Some(right), par).right.blocks()
}

/// The roundings that a term passes: of both products, one for theirs, and of the sums over positions.
pub(crate) fn depth<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, par: Par) -> usize {
    let plan = Plan::new(left, right, par);
    let slabs = |k: usize| slabs_of(0..k).map(|slab| slab.len()).max().unwrap_or(0) + slabs_of(0..k).count();
    let positions = plan.left.positions + plan.right.positions;
    slabs(plan.depths[0]) + slabs(plan.depths[1]) + 1 + if positions > 2 { 2 * positions } else { 0 }
}

/// Scratch of [`run`].
pub(crate) fn scratch<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, par: Par) -> StackReq {
    let plan = Plan::new(left, right, par);
    let req = |len: usize| StackReq::new_aligned::<T>(len, ALIGN);
    let degree = plan.par(par).degree();
    StackReq::all_of(&[req(plan.window_lens()[1]), req(plan.slab_len() * degree), req(2 * plan.tile_len() * degree)])
}

/// Pairs of `left` with `right`, or with itself and then the lower triangle only. `stack` must hold [`scratch`].
pub(crate) fn run<T: Element>(
    left: &Half<'_, T>,
    right: Option<&Half<'_, T>>,
    sink: &dyn Sink<T>,
    par: Par,
    stack: &mut MemStack,
) {
    let kernels = T::kernels(par.isa());
    let plan = Plan::new(left, right, par);
    let par = plan.par(par);
    par.enter(|| {
        let (window, stack) = aligned::<T>(stack, plan.window_lens()[1]);
        let (slabs, stack) = aligned::<T>(stack, plan.slab_len() * par.degree());
        let (tiles, _) = aligned::<T>(stack, 2 * plan.tile_len() * par.degree());
        let (window, slabs) = (Buffers::new(window, 1), Buffers::new(slabs, par.degree()));
        let tiles = Buffers::new(tiles, par.degree());
        let job = Job { plan: &plan, left, right: right.unwrap_or(left), window: &window, sink, kernels };
        for j in 0..plan.right.blocks() {
            let cols = plan.right.block(j);
            job.pack(&cols, par);
            let all = plan.rows(&cols);
            let strips = all.len().div_ceil(plan.left.per);
            par.for_each(strips, &|worker, task| {
                // From the last on: those that meet the diagonal are shorter.
                let first = all.start + (strips - 1 - task) * plan.left.per;
                // SAFETY: one task at a time has this worker's number.
                let memory = unsafe { (slabs.part(worker), tiles.part(worker)) };
                job.tile(&(first..all.end.min(first + plan.left.per)), (j, &cols), memory);
            });
        }
    });
}

struct Job<'a, T: Element> {
    plan: &'a Plan,
    left: &'a Half<'a, T>,
    right: &'a Half<'a, T>,
    /// The right batch's window, packed.
    window: &'a Buffers<T>,
    sink: &'a dyn Sink<T>,
    kernels: &'static Kernels<T>,
}

impl<T: Element> Job<'_, T> {
    /// Packs a window.
    fn pack(&self, rows: &Range<usize>, par: Par) {
        let plan = self.plan;
        let (nr, panels, lens) = (plan.nr, plan.right.panels(plan.nr), plan.window_lens());
        let stretches = plan.depths.map(|depth| depth.div_ceil(STRETCH));
        par.for_each(panels[0] * stretches[0] + panels[1] * stretches[1], &|_, task| {
            let (side, task) = match task.checked_sub(panels[0] * stretches[0]) {
                None => (0, task),
                Some(task) => (1, task),
            };
            let (panel, start) = (task / stretches[side], task % stretches[side] * STRETCH);
            let depth = plan.depths[side];
            let end = depth.min(start + STRETCH);
            let indices = &self.right.indices(rows)[side];
            let first = indices.start + panel * nr;
            if first >= indices.end {
                return;
            }
            let at = if side == 1 { lens[0] } else { 0 } + (panel * depth + start) * nr;
            // SAFETY: this task's stretch of this panel, inside the memory of the window.
            let memory =
                unsafe { core::slice::from_raw_parts_mut(self.window.as_mut_ptr().add(at), (end - start) * nr) };
            self.right.operands[side].pack(memory, first, start, self.kernels);
        });
    }

    /// All pairs of a strip and a window, on or below the diagonal.
    fn tile(&self, rows: &Range<usize>, (window, cols): (usize, &Range<usize>), (slabs, tiles): (&mut [T], &mut [T])) {
        let plan = self.plan;
        let cols = cols.start..if plan.lower { cols.end.min(rows.end) } else { cols.end };
        let [left, right] = [self.left.indices(rows), self.right.indices(&cols)];
        let (xs, es) = tiles.split_at_mut(plan.tile_len());
        // More than one stretch of positions only where a block is one row.
        for p in (0..left[1].len()).step_by(plan.left.side) {
            for q in (0..right[1].len()).step_by(plan.right.side) {
                for (side, tile) in [&mut *xs, &mut *es].into_iter().enumerate() {
                    let len = |at: usize, cut: &Cut, range: &Range<usize>| cut.side.min(range.len() - at);
                    let lens = [len(p, &plan.left, &left[side]), len(q, &plan.right, &right[side])];
                    // What lies above the diagonal is not computed where an index is a row, or a datapoint.
                    let part = match plan.lower && plan.left.positions == 1 && right[side].end > left[side].start {
                        true => Part::Lower(left[side].start - right[side].start),
                        false => Part::Full,
                    };
                    self.product(tile, lens, (side, left[side].start + p, q), slabs, part);
                }
                self.combine((xs, es), (rows, &cols), (p, q), window);
            }
        }
    }

    /// One product of a tile, of the left indices from `first` on with the window's from `q` on, its depth by slabs.
    fn product(
        &self,
        tile: &mut [T],
        [rows, cols]: [usize; 2],
        (side, first, q): (usize, usize, usize),
        memory: &mut [T],
        part: Part,
    ) {
        let (plan, nr, depth) = (self.plan, self.plan.nr, self.plan.depths[side]);
        if depth == 0 {
            tile.fill(T::zero());
        }
        let from = if side == 1 { plan.window_lens()[0] } else { 0 } + q * depth;
        let window = self.window.as_ptr().wrapping_add(from);
        for depths in slabs_of(0..depth) {
            let left = match self.left.operands[side].rows(first, &depths) {
                Some(rows) => Left::Rows(rows),
                None => {
                    let panels = memory.chunks_exact_mut(nr * depths.len()).take(rows.div_ceil(nr));
                    for (panel, memory) in panels.enumerate() {
                        self.left.operands[side].pack(memory, first + panel * nr, depths.start, self.kernels);
                    }
                    Left::Packed(Panels { ptr: memory.as_ptr(), step: nr * depths.len(), continued: false })
                }
            };
            let right =
                Panels { ptr: window.wrapping_add(depths.start * nr), step: nr * depth, continued: depths.end < depth };
            let slab = Slab { rows, cols, depth: depths.len(), left, right, part };
            // SAFETY: the panels hold these depths; a tile has room for whole panels of columns.
            unsafe { slab.add(tile.as_mut_ptr(), plan.ld(), depths.start == 0, self.kernels) };
        }
    }

    /// Multiplies two tiles and hands the pairs' sums on, row by row.
    fn combine(
        &self,
        (xs, es): (&mut [T], &mut [T]),
        (rows, cols): (&Range<usize>, &Range<usize>),
        (p, q): (usize, usize),
        window: usize,
    ) {
        let (ld, kernels) = (self.plan.ld(), self.kernels);
        let [lc, rc] = [self.left.labels, self.right.labels];
        // Positions of a row in this stretch.
        let stretch = |cut: &Cut, at: usize| cut.side.min(cut.positions - at);
        let (lt, rt) = (stretch(&self.plan.left, p), stretch(&self.plan.right, q));
        let mut line = [T::zero(); LINE / size_of::<f32>()];
        for r in rows.clone() {
            let count = if self.plan.lower { cols.len().min(r + 1 - cols.start) } else { cols.len() };
            let (e_row, x_row) = (r - rows.start, r / lc - rows.start / lc);
            let x_col = |s: usize| (cols.start + s) / rc - cols.start / rc;
            if lt == 1 && rt == 1 {
                let (x, e) = (&xs[x_row * ld..][..ld], &mut es[e_row * ld..][..ld]);
                let factors = match rc {
                    1 => x.as_ptr(),
                    _ => {
                        line[..count].iter_mut().enumerate().for_each(|(s, factor)| *factor = x[x_col(s)]);
                        line.as_ptr()
                    }
                };
                // SAFETY: the kernels belong to an ISA this CPU has; both hold `count` elements.
                unsafe { (kernels.multiply)(e.as_mut_ptr(), factors, count) };
                // SAFETY: this task has the tile.
                unsafe { self.sink.add(r, cols.start, window, &e[..count], kernels) };
                continue;
            }
            for (s, sum) in line[..count].iter_mut().enumerate() {
                *sum = T::zero();
                for t in 0..lt {
                    let x = &xs[(x_row * lt + t) * ld + x_col(s) * rt..][..rt];
                    let e = &es[(e_row * lt + t) * ld + s * rt..][..rt];
                    // SAFETY: the kernels belong to an ISA this CPU has; two lines of `rt` elements.
                    *sum += unsafe { (kernels.dot)(x.as_ptr(), e.as_ptr(), rt) };
                }
            }
            // SAFETY: this task has the tile.
            unsafe { self.sink.add(r, cols.start, window, &line[..count], kernels) };
        }
    }
}
