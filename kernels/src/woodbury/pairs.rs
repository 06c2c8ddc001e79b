//! Inner products of the gradients of two batches, `<g_r, g'_s> = sum_tu (x_rt . x'_su) (e_rt . e'_su)`, a tile of rows at a time.
//!
//! ```text
//! for each square of rows whose panels are packed at once                        bounds memory, not needed for speed
//!     for each tile, on whichever thread is free
//!         xs = X X'^T of the tile,  es = E E'^T of the tile                      both in L2, finished before they meet
//!         es = es * xs, entry by entry, summed over the positions of each pair of rows
//!         sink(row of es), for each row
//! ```

use super::layer::{Block, Loader};
use crate::conv::patches::Index;
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::pack::Pack;
use crate::engine::slab::{Panels, Part, Slab};
use crate::engine::{ALIGN, Buffers, PARALLEL_WORK, SIDES, TASKS, aligned, slabs_of};
use crate::par::Par;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};

/// The least side of a tile in rows and positions. Two tiles and two slabs of the largest fit L2.
pub(crate) const LEAST: usize = SIDES[SIDES.len() - 1];
/// Rows whose panels are packed at once, unless all of up to twice as many.
const PACKED_ROWS: usize = 1024;
/// Depths that a packing task takes.
const STRETCH: usize = 512;

/// One batch of a layer as operands with rows as indices.
pub(crate) struct Half<'a, T: Element> {
    x: Loader<'a, T>,
    e: Loader<'a, T>,
    pub(crate) rows: usize,
    labels: usize,
    positions: usize,
}

impl<'a, T: Element> Half<'a, T> {
    pub(crate) fn new(block: &Block<'a, T>) -> Self {
        let (x, e) = (block.inputs(Index::Outputs), block.errors(Index::Outputs));
        Half { x, e, rows: block.rows(), labels: block.labels, positions: block.positions }
    }

    fn operands(&self) -> [&dyn Pack<T>; 2] {
        [&self.x, &self.e]
    }

    /// Indices of inputs and errors that rows `rows` stand for.
    fn indices(&self, rows: &Range<usize>) -> [Range<usize>; 2] {
        let datapoints = rows.start / self.labels..rows.end.div_ceil(self.labels);
        [&datapoints, rows].map(|range| range.start * self.positions..range.end * self.positions)
    }
}

/// Takes finished rows of pairs.
pub(crate) trait Sink<T: Element>: Sync {
    /// Adds the pairs of `row` with the rows from `first` on, of column `column` of tiles.
    ///
    /// # Safety
    /// One task at a time has the tile; all rows exist.
    unsafe fn add(&self, row: usize, first: usize, column: usize, line: &[T], kernels: &Kernels<T>);
}

/// Blocks of rows of one side.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    /// Rows of a block: whole datapoints and positions of at most a tile's side, or one row.
    per: usize,
    positions: usize,
    labels: usize,
    /// Blocks packed at once.
    square: usize,
}

impl Cut {
    fn new<T: Element>(half: &Half<'_, T>, side: usize) -> Cut {
        let per = (side / half.positions).clamp(1, half.rows);
        let each = per * half.positions;
        let all = half.rows * half.positions <= 2 * PACKED_ROWS;
        let square = if all { half.rows.div_ceil(per) } else { (PACKED_ROWS / each).max(1) };
        Cut { rows: half.rows, per, positions: half.positions, labels: half.labels, square }
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

    /// Squares of blocks along the side.
    fn squares(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (blocks, square) = (self.blocks(), self.square);
        (0..blocks).step_by(square).map(move |first| first..blocks.min(first + square))
    }
}

/// How pairs are cut, by shape and instruction set alone.
struct Plan {
    side: usize,
    left: Cut,
    right: Cut,
    lower: bool,
    /// Depths of inputs and errors.
    depths: [usize; 2],
    nr: usize,
    work: usize,
}

impl Plan {
    fn new<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, kernels: &Kernels<T>) -> Plan {
        let lower = right.is_none();
        let right = right.unwrap_or(left);
        let depths = left.operands().map(|operand| operand.depth());
        let positions = left.positions.saturating_mul(right.positions);
        let pairs = left.rows.saturating_mul(right.rows).saturating_mul(positions) / if lower { 2 } else { 1 };
        let with_side = |side: usize| {
            let (left, right) = (Cut::new(left, side), Cut::new(right, side));
            Plan { side, left, right, lower, depths, nr: kernels.nr, work: pairs.saturating_mul(depths[0] + depths[1]) }
        };
        let largest = if size_of::<T>() > 4 { 1 } else { 0 };
        let mut plan = with_side(SIDES[largest]);
        for &side in &SIDES[largest..] {
            if plan.tiles() >= TASKS || plan.work < PARALLEL_WORK {
                break;
            }
            plan = with_side(side);
        }
        plan
    }

    fn tiles(&self) -> usize {
        let (m, n) = (self.left.blocks(), self.right.blocks());
        if self.lower { m * (m + 1) / 2 } else { m * n }
    }

    fn par(&self, par: Par) -> Par {
        par.at_most(if self.work < PARALLEL_WORK { 1 } else { self.tiles() })
    }

    /// Columns of a tile in memory.
    fn ld(&self) -> usize {
        let widest = |cut: &Cut| (cut.per * cut.positions).min(self.side).next_multiple_of(self.nr);
        widest(&self.right)
    }

    fn tile_len(&self) -> usize {
        self.ld() * (self.left.per * self.left.positions).min(self.side)
    }

    /// Elements of one block's panels of inputs, and of both.
    fn block_lens(&self, cut: &Cut) -> [usize; 2] {
        let panels = cut.panels(self.nr);
        let x = panels[0] * self.nr * self.depths[0];
        [x, x + panels[1] * self.nr * self.depths[1]]
    }

    /// Elements packed at once of each side; one is enough where all squares are the same.
    fn packed(&self) -> [usize; 2] {
        let len = |cut: &Cut| cut.square.min(cut.blocks()) * self.block_lens(cut)[1];
        let one = self.lower && self.left.square >= self.left.blocks();
        [len(&self.left), if one { 0 } else { len(&self.right) }]
    }
}

/// Columns of tiles.
pub(crate) fn columns<T: Element>(left: &Half<'_, T>, right: &Half<'_, T>, par: Par) -> usize {
    Plan::new(left, Some(right), T::kernels(par.isa())).right.blocks()
}

/// The roundings that a term passes: of both products, one for theirs, and of the sums over positions.
pub(crate) fn depth<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, par: Par) -> usize {
    let plan = Plan::new(left, right, T::kernels(par.isa()));
    let slabs = |k: usize| slabs_of(0..k).map(|slab| slab.len()).max().unwrap_or(0) + slabs_of(0..k).count();
    let positions = plan.left.positions + plan.right.positions;
    slabs(plan.depths[0]) + slabs(plan.depths[1]) + 1 + if positions > 2 { 2 * positions } else { 0 }
}

/// Scratch of [`run`].
pub(crate) fn scratch<T: Element>(left: &Half<'_, T>, right: Option<&Half<'_, T>>, par: Par) -> StackReq {
    let plan = Plan::new(left, right, T::kernels(par.isa()));
    let req = |len: usize| StackReq::new_aligned::<T>(len, ALIGN);
    let [l, r] = plan.packed();
    StackReq::all_of(&[req(l), req(r), req(2 * plan.tile_len() * plan.par(par).degree())])
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
    let plan = Plan::new(left, right, kernels);
    let par = plan.par(par);
    par.enter(|| {
        let [l, r] = plan.packed();
        let (packed_left, stack) = aligned::<T>(stack, l);
        let (packed_right, stack) = aligned::<T>(stack, r);
        let (tiles, _) = aligned::<T>(stack, 2 * plan.tile_len() * par.degree());
        let (left_panels, right_panels) = (Buffers::new(packed_left, 1), Buffers::new(packed_right, 1));
        let tiles = Buffers::new(tiles, par.degree());
        let job = Job { plan: &plan, left, right: right.unwrap_or(left), sink, kernels };
        for rows in plan.left.squares() {
            job.pack(job.left, &plan.left, rows.clone(), &left_panels, par);
            for cols in plan.right.squares() {
                let same = plan.lower && cols == rows;
                if plan.lower && cols.start > rows.start {
                    break;
                }
                if !same {
                    job.pack(job.right, &plan.right, cols.clone(), &right_panels, par);
                }
                let panels = [&left_panels, if same { &left_panels } else { &right_panels }].map(Buffers::as_ptr);
                let panels = Squares { rows: rows.clone(), cols: cols.clone(), panels };
                let count = if same { rows.len() * (rows.len() + 1) / 2 } else { rows.len() * cols.len() };
                par.for_each(count, &|worker, task| {
                    let (i, j) = if same { triangle(rows.len(), task) } else { (task / cols.len(), task % cols.len()) };
                    // SAFETY: one task at a time has this worker's number.
                    job.tile(&panels, (rows.start + i, cols.start + j), unsafe { tiles.part(worker) });
                });
            }
        }
    });
}

/// Tile `index` of a triangle of `rows` rows, the longest first.
fn triangle(rows: usize, mut index: usize) -> (usize, usize) {
    let mut i = rows;
    loop {
        if index < i {
            return (i - 1, index);
        }
        index -= i;
        i -= 1;
    }
}

/// Panels of two ranges of blocks.
struct Squares<T> {
    rows: Range<usize>,
    cols: Range<usize>,
    panels: [*const T; 2],
}

// SAFETY: panels are only read while tiles are computed.
unsafe impl<T: Sync> Sync for Squares<T> {}

struct Job<'a, T: Element> {
    plan: &'a Plan,
    left: &'a Half<'a, T>,
    right: &'a Half<'a, T>,
    sink: &'a dyn Sink<T>,
    kernels: &'static Kernels<T>,
}

impl<T: Element> Job<'_, T> {
    /// Packs the blocks `blocks` of one side.
    fn pack(&self, half: &Half<'_, T>, cut: &Cut, blocks: Range<usize>, to: &Buffers<T>, par: Par) {
        let (nr, panels, lens) = (self.plan.nr, cut.panels(self.plan.nr), self.plan.block_lens(cut));
        let stretches = self.plan.depths.map(|depth| depth.div_ceil(STRETCH));
        let each = panels[0] * stretches[0] + panels[1] * stretches[1];
        par.for_each(blocks.len() * each, &|_, task| {
            let (block, task) = (task / each, task % each);
            let (side, task) = match task.checked_sub(panels[0] * stretches[0]) {
                None => (0, task),
                Some(task) => (1, task),
            };
            let (panel, start) = (task / stretches[side], task % stretches[side] * STRETCH);
            let depth = self.plan.depths[side];
            let end = depth.min(start + STRETCH);
            let indices = &half.indices(&cut.block(blocks.start + block))[side];
            let first = indices.start + panel * nr;
            if first >= indices.end {
                return;
            }
            let at = block * lens[1] + if side == 1 { lens[0] } else { 0 } + (panel * depth + start) * nr;
            // SAFETY: this task's stretch of this panel, inside the memory of the blocks.
            let memory = unsafe { core::slice::from_raw_parts_mut(to.as_mut_ptr().add(at), (end - start) * nr) };
            half.operands()[side].pack(memory, first, start, self.kernels);
        });
    }

    /// All pairs of two blocks.
    fn tile(&self, squares: &Squares<T>, (i, j): (usize, usize), tiles: &mut [T]) {
        let plan = self.plan;
        let (rows, cols) = (plan.left.block(i), plan.right.block(j));
        let blocks = [(i - squares.rows.start, &plan.left), (j - squares.cols.start, &plan.right)];
        // A block's inputs, then its errors.
        let panels = |at: usize, side: usize| {
            let ((block, cut), [x, both]) = (blocks[at], plan.block_lens(blocks[at].1));
            debug_assert!(block < cut.square);
            squares.panels[at].wrapping_add(block * both + if side == 1 { x } else { 0 })
        };
        let [left, right] = [self.left.indices(&rows), self.right.indices(&cols)];
        let (xs, es) = tiles.split_at_mut(plan.tile_len());
        let diagonal = plan.lower && i == j;
        // More than one stretch of positions only where a block is one row.
        for p in (0..left[1].len()).step_by(plan.side) {
            for q in (0..right[1].len()).step_by(plan.side) {
                for (side, tile) in [&mut *xs, &mut *es].into_iter().enumerate() {
                    let depth = plan.depths[side];
                    let lens = [(p, &left[side]), (q, &right[side])].map(|(at, range)| plan.side.min(range.len() - at));
                    let panels = [(0, p), (1, q)].map(|(at, from)| Panels {
                        ptr: panels(at, side).wrapping_add(from * depth),
                        step: plan.nr * depth,
                        continued: false,
                    });
                    let part = if diagonal && plan.left.positions == 1 { Part::Lower(0) } else { Part::Full };
                    self.product(tile, lens, depth, panels, part);
                }
                self.combine((xs, es), (&rows, &cols), (p, q), (diagonal, j));
            }
        }
    }

    /// One product of a tile, its depth by slabs.
    fn product(&self, tile: &mut [T], [rows, cols]: [usize; 2], depth: usize, [l, r]: [Panels<T>; 2], part: Part) {
        let plan = self.plan;
        if depth == 0 {
            tile.fill(T::zero());
        }
        for depths in slabs_of(0..depth) {
            let panels = |panels: Panels<T>| Panels {
                ptr: panels.ptr.wrapping_add(depths.start * plan.nr),
                continued: depths.end < depth,
                ..panels
            };
            let slab = Slab { rows, cols, depth: depths.len(), left: panels(l), right: panels(r), part };
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
        (diagonal, column): (bool, usize),
    ) {
        let (ld, kernels) = (self.plan.ld(), self.kernels);
        let [lc, rc] = [self.left.labels, self.right.labels];
        // Positions of a row in this stretch.
        let stretch = |half: &Half<'_, T>, at: usize| self.plan.side.min(half.positions - at);
        let (lt, rt) = (stretch(self.left, p), stretch(self.right, q));
        let mut line = [T::zero(); SIDES[0]];
        for r in rows.clone() {
            let count = if diagonal { r + 1 - cols.start } else { cols.len() };
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
                unsafe { self.sink.add(r, cols.start, column, &e[..count], kernels) };
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
            unsafe { self.sink.add(r, cols.start, column, &line[..count], kernels) };
        }
    }
}
