//! The engine: `epilogue(pack(L) pack(R))`, the blocked loops under every dense kernel, written once.
//!
//! ```text
//! for each tile of the output, shared out over the threads                     macro-tile, in L2
//!     for each slab of KC depths of the tile's chunk                           depth innermost: the tile is finished
//!         for each panel of nr columns                                         R panel of the slab, in L1
//!             for each step of mr rows                                         register tile
//!                 tile[rows][cols] += sum_p L[p][rows] R[p][cols]
//!     epilogue(tile)
//! ```
//!
//! Panels are packed ahead where several tiles share them, else, and for streamed products, by each task for itself. A long sum over few tiles is cut
//! into chunks by a rule that knows only the shape; partial tiles are added in order. So the bits of a result do not
//! depend on the number of threads.

pub mod epilogue;
pub mod grouped;
pub(crate) mod kernels;
pub(crate) mod microkernel;
pub mod pack;
mod plan;
pub(crate) mod rows;
pub(crate) mod slab;
pub(crate) mod small;

use crate::element::Element;
use crate::par::Par;
use core::mem::MaybeUninit;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};
use epilogue::{Epilogue, Tile};
use kernels::Kernels;
use pack::Pack;
pub(crate) use plan::slabs_of;
pub(crate) use plan::{ALIGN, LEAST, LINE, PARALLEL_WORK, TASKS, WINDOW, aligned, strip_rows};
use plan::{Packing, Plan, Region};
use slab::{Left, Panels, Part, Slab};

/// Widest panel of any instruction set.
pub(crate) const WIDEST: usize = 64;

/// One tiled product: `left [m, k] * right [k, n]`.
pub struct Engine<'a, T: Element> {
    left: &'a dyn Pack<T>,
    /// `None`: the left operand's transpose; only the lower triangle is computed.
    right: Option<&'a dyn Pack<T>>,
    epilogue: &'a dyn Epilogue<T>,
    plan: Plan,
    kernels: &'static Kernels<T>,
    par: Par,
}

/// Indices of an operand, and where their panels go.
type Whole<'a, T> = (&'a dyn Pack<T>, Range<usize>, &'a Buffers<T>);

/// Panels packed ahead.
#[derive(Clone, Copy)]
struct Packed<'a, T> {
    left: &'a [T],
    right: &'a [T],
}

/// What a worker owns: a tile, and slabs if it packs for itself. Handed out by worker number.
pub(crate) struct Buffers<T> {
    ptr: *mut T,
    len: usize,
}

// SAFETY: each worker takes the part with its own number.
unsafe impl<T: Send> Sync for Buffers<T> {}

impl<T> Buffers<T> {
    pub(crate) fn new(memory: &mut [MaybeUninit<T>], parts: usize) -> Self {
        Buffers { ptr: memory.as_mut_ptr().cast(), len: memory.len() / parts.max(1) }
    }

    /// # Safety
    /// No two live borrows of one `part`; parts below the number given to `new`. Read only what has been written.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, part: usize) -> &mut [T] {
        // SAFETY: parts are disjoint; floating-point memory has no invalid bits, and callers write before they read.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(part * self.len), self.len) }
    }

    /// The same, not to be read at all before it is written.
    ///
    /// # Safety
    /// As [`part`](Buffers::part).
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn uninit(&self, part: usize) -> &mut [MaybeUninit<T>] {
        // SAFETY: parts are disjoint.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(part * self.len).cast(), self.len) }
    }

    /// The first part.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.ptr
    }

    /// The first part, to be written.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.ptr
    }
}

fn plan<T: Element>(m: usize, n: usize, k: usize, symmetric: bool, par: Par) -> Plan {
    let region = if symmetric { Region::Lower } else { Region::Full };
    Plan::new(m, n, k, region, T::kernels(par.isa()))
}

/// The plan of [`Engine::streamed`].
fn streamed_plan<T: Element>(m: usize, n: usize, k: usize, par: Par) -> Plan {
    Plan::streamed(m, n, k, T::kernels(par.isa()))
}

/// Scratch of [`Engine::streamed`] for a product of this shape: slabs and tiles only.
pub(crate) fn streamed_scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    streamed_plan::<T>(m, n, k, par).scratch::<T>(par)
}

/// The longest chain of additions into one entry of [`Engine::streamed`].
pub(crate) fn streamed_depth<T: Element>(m: usize, n: usize, k: usize, par: Par) -> usize {
    streamed_plan::<T>(m, n, k, par).depth()
}

/// As [`streamed_scratch`], of [`Engine::windowed`].
pub(crate) fn windowed_scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    Plan::windowed::<T>(m, n, k, par).scratch::<T>(par)
}

/// As [`streamed_depth`], of [`Engine::windowed`].
pub(crate) fn windowed_depth<T: Element>(m: usize, n: usize, k: usize, par: Par) -> usize {
    Plan::windowed::<T>(m, n, k, par).depth()
}

/// Rows of a tile of a product, or of a streamed one.
pub(crate) fn tile_rows<T: Element>(m: usize, n: usize, k: usize, streamed: bool, par: Par) -> usize {
    if streamed { streamed_plan::<T>(m, n, k, par).tm } else { plan::<T>(m, n, k, false, par).tm }
}

/// Scratch for a product of this shape.
pub fn scratch<T: Element>(m: usize, n: usize, k: usize, symmetric: bool, par: Par) -> StackReq {
    plan::<T>(m, n, k, symmetric, par).scratch::<T>(par)
}

/// The longest chain of additions into one entry of a product of this shape.
pub fn depth<T: Element>(m: usize, n: usize, k: usize, symmetric: bool, par: Par) -> usize {
    plan::<T>(m, n, k, symmetric, par).depth()
}

impl<'a, T: Element> Engine<'a, T> {
    /// `epilogue(left right^T)` with both operands indexed `[index, depth]`.
    pub fn product(left: &'a dyn Pack<T>, right: &'a dyn Pack<T>, epilogue: &'a dyn Epilogue<T>, par: Par) -> Self {
        assert_eq!(left.depth(), right.depth(), "product: depths differ");
        Self::new(left, Some(right), epilogue, par)
    }

    /// [`product`](Engine::product) for operands far larger packed than as they are: none is ever packed whole, each task packs the slabs of
    /// its own tile.
    pub(crate) fn streamed(
        left: &'a dyn Pack<T>,
        right: &'a dyn Pack<T>,
        epilogue: &'a dyn Epilogue<T>,
        par: Par,
    ) -> Self {
        assert_eq!(left.depth(), right.depth(), "product: depths differ");
        let plan = streamed_plan::<T>(left.extent(), right.extent(), left.depth(), par);
        Engine { left, right: Some(right), epilogue, plan, kernels: T::kernels(par.isa()), par: plan.par(par) }
    }

    /// [`product`](Engine::product) in little memory: a window of the right operand is packed at a time, and the left one by each task, slab by
    /// slab.
    pub(crate) fn windowed(
        left: &'a dyn Pack<T>,
        right: &'a dyn Pack<T>,
        epilogue: &'a dyn Epilogue<T>,
        par: Par,
    ) -> Self {
        assert_eq!(left.depth(), right.depth(), "product: depths differ");
        let plan = Plan::windowed::<T>(left.extent(), right.extent(), left.depth(), par);
        Engine { left, right: Some(right), epilogue, plan, kernels: T::kernels(par.isa()), par: plan.par(par) }
    }

    /// `epilogue(x x^T)`, tiles that meet the lower triangle only.
    pub fn symmetric(x: &'a dyn Pack<T>, epilogue: &'a dyn Epilogue<T>, par: Par) -> Self {
        Self::new(x, None, epilogue, par)
    }

    fn new(left: &'a dyn Pack<T>, right: Option<&'a dyn Pack<T>>, epilogue: &'a dyn Epilogue<T>, par: Par) -> Self {
        let n = right.unwrap_or(left).extent();
        let plan = plan::<T>(left.extent(), n, left.depth(), right.is_none(), par);
        Engine { left, right, epilogue, plan, kernels: T::kernels(par.isa()), par: plan.par(par) }
    }

    /// Runs the product. `stack` must hold [`scratch`] for its shape.
    pub fn run(&self, stack: &mut MemStack) {
        if self.plan.m > 0 && self.plan.n > 0 {
            self.par.enter(|| match self.plan.packing {
                Packing::Windows => self.run_windows(stack),
                _ => self.run_inside(stack),
            });
        }
    }

    fn run_inside(&self, stack: &mut MemStack) {
        let plan = &self.plan;
        let (packed, stack) = self.pack_ahead(stack);
        let degree = self.par.degree();
        let (l, r) = plan.slab_lens();
        let (slabs, stack) = aligned::<T>(stack, (l + r) * degree);
        let (tiles, stack) = aligned::<T>(stack, plan.tile_len() * degree);
        let (partials, _) = aligned::<T>(stack, plan.partials_len());
        let slabs = Buffers::new(slabs, degree);
        let tiles = Buffers::new(tiles, degree);
        let partials = Buffers::new(partials, plan.tiles() * plan.chunks);

        self.par.for_each(plan.tiles() * plan.chunks, &|worker, task| {
            let (index, chunk) = (task / plan.chunks, task % plan.chunks);
            // SAFETY: one task at a time has this worker's number, and one task this partial tile.
            let (slabs, tile) =
                unsafe { (slabs.part(worker), if plan.chunks > 1 { partials.part(task) } else { tiles.part(worker) }) };
            self.compute(index, plan.chunk(chunk), packed, slabs, tile);
            if plan.chunks == 1 {
                self.finish(index, tile);
            }
        });
        if plan.chunks > 1 {
            self.par.for_each(plan.tiles(), &|_, index| {
                // SAFETY: the chunks of one tile belong to this task.
                let sum = unsafe { partials.part(index * plan.chunks) };
                for chunk in 1..plan.chunks {
                    // SAFETY: as above; another part than `sum`.
                    let part = unsafe { partials.part(index * plan.chunks + chunk) };
                    // SAFETY: two distinct tiles of one length.
                    unsafe { (self.kernels.blend)(sum.as_mut_ptr(), part.as_ptr(), part.len(), T::one(), T::one()) };
                }
                self.finish(index, sum);
            });
        }
    }

    /// One window of columns after the other: its panels, then its tiles.
    fn run_windows(&self, stack: &mut MemStack) {
        let (plan, degree) = (&self.plan, self.par.degree());
        let (window, stack) = aligned::<T>(stack, plan.packed_lens()[1]);
        let (slabs, stack) = aligned::<T>(stack, plan.slab_lens().0 * degree);
        let (tiles, _) = aligned::<T>(stack, plan.tile_len() * degree);
        let (slabs, tiles) = (Buffers::new(slabs, degree), Buffers::new(tiles, degree));
        let (rows, cols) = plan.grid();
        for j in 0..cols {
            let right = self.right.unwrap_or(self.left);
            self.pack_whole(&[(right, plan.tile(j).1, &Buffers::new(window, 1))]);
            // SAFETY: every panel of the window that a tile reads has been filled.
            let right = unsafe { core::slice::from_raw_parts(window.as_ptr().cast::<T>(), window.len()) };
            let packed = Packed { left: &[], right };
            self.par.for_each(rows, &|worker, i| {
                // SAFETY: one task at a time has this worker's number.
                let (slabs, tile) = unsafe { (slabs.part(worker), tiles.part(worker)) };
                self.compute(i * cols + j, 0..plan.k, packed, slabs, tile);
                self.finish(i * cols + j, tile);
            });
        }
    }

    /// Whether the left operand is read where it lies.
    fn left_in_place(&self) -> bool {
        self.right.is_some() && self.left.rows(0, &(0..self.plan.k)).is_some()
    }

    /// Packs whole operands, by panel and stretch of depth, those that the plan wants ahead.
    fn pack_ahead<'s>(&self, stack: &'s mut MemStack) -> (Packed<'s, T>, &'s mut MemStack) {
        let plan = &self.plan;
        let [left_len, right_len] = plan.packed_lens();
        let left_len = if self.left_in_place() { 0 } else { left_len };
        let (left, stack) = aligned::<T>(stack, left_len);
        let (right, stack) = aligned::<T>(stack, right_len);
        let indices = |len: usize, extent: usize| 0..if len > 0 { extent } else { 0 };
        self.pack_whole(&[
            (self.left, indices(left_len, plan.m), &Buffers::new(left, 1)),
            (self.right.unwrap_or(self.left), indices(right_len, plan.n), &Buffers::new(right, 1)),
        ]);
        // SAFETY: every panel has been filled.
        let filled = |memory: &'s [MaybeUninit<T>]| unsafe {
            core::slice::from_raw_parts(memory.as_ptr().cast::<T>(), memory.len())
        };
        let (left, right) = (filled(left), filled(right));
        (Packed { left, right: if self.right.is_some() { right } else { left } }, stack)
    }

    /// Packs these indices of operands at all depths, by panel and stretch of depth.
    fn pack_whole(&self, operands: &[Whole<'_, T>]) {
        const STRETCH: usize = 512;
        let (k, nr) = (self.plan.k, self.plan.nr);
        let panels = |indices: &Range<usize>| indices.len().div_ceil(nr);
        let stretches = k.div_ceil(STRETCH);
        let all: usize = operands.iter().map(|(_, indices, _)| panels(indices)).sum();
        self.par.for_each(all * stretches, &|_, task| {
            let (mut panel, start) = (task / stretches, task % stretches * STRETCH);
            for (operand, indices, to) in operands {
                if panel >= panels(indices) {
                    panel -= panels(indices);
                    continue;
                }
                let end = k.min(start + STRETCH);
                // SAFETY: tasks of one panel take disjoint stretches of it; the borrow is cut down to this task's at once.
                let memory = unsafe {
                    core::slice::from_raw_parts_mut(to.ptr.add((panel * k + start) * nr), (end - start) * nr)
                };
                return operand.pack(memory, indices.start + panel * nr, start, self.kernels);
            }
        });
    }

    /// Sums one stretch of depth of one tile.
    fn compute(&self, index: usize, depths: Range<usize>, packed: Packed<'_, T>, slabs: &mut [T], tile: &mut [T]) {
        let plan = &self.plan;
        let (rows, cols) = plan.tile(index);
        if plan.chunks > 1 || depths.is_empty() {
            // Chunks are added whole, padding and tiles above the diagonal included; an empty sum is zero.
            tile.fill(T::zero());
        }
        let (slab_left, slab_right) = slabs.split_at_mut(plan.slab_lens().0);
        let first = depths.start;
        for depths in slabs_of(depths) {
            let fresh = depths.start == first;
            // Of a window the first column is that of the tile.
            let first_packed = if plan.packing == Packing::Windows { cols.start } else { 0 };
            let ahead = |packed: &'_ [T], from: usize| Panels {
                ptr: packed[from / plan.nr * plan.nr * plan.k + depths.start * plan.nr..].as_ptr(),
                step: plan.nr * plan.k,
                continued: depths.end < plan.k,
            };
            let slab =
                |memory: &'_ [T]| Panels { ptr: memory.as_ptr(), step: plan.nr * depths.len(), continued: false };
            let [left_ahead, right_ahead] = plan.packs_ahead();
            let l = match self.left.rows(rows.start, &depths).filter(|_| self.right.is_some()) {
                Some(rows) => Left::Rows(rows),
                None if left_ahead => Left::Packed(ahead(packed.left, rows.start)),
                None => {
                    self.pack_slab(self.left, slab_left, &rows, &depths);
                    Left::Packed(slab(slab_left))
                }
            };
            let r = match (self.right, l) {
                _ if right_ahead => ahead(packed.right, cols.start - first_packed),
                (Some(right), _) => {
                    self.pack_slab(right, slab_right, &cols, &depths);
                    slab(slab_right)
                }
                // One tile: its rows are its columns.
                (None, Left::Packed(l)) => l,
                (None, Left::Rows(_)) => unreachable!("a symmetric product is packed"),
            };
            let slab = Slab {
                rows: rows.len(),
                cols: cols.len(),
                depth: depths.len(),
                left: l,
                right: r,
                part: match plan.region {
                    Region::Full => Part::Full,
                    Region::Lower => Part::Lower(rows.start - cols.start),
                },
            };
            // SAFETY: panels hold this slab's depths; a tile has room for whole panels of columns.
            unsafe { slab.add(tile.as_mut_ptr(), plan.tn, fresh, self.kernels) };
        }
    }

    /// Packs the indices of a tile, over the depths of a slab.
    fn pack_slab(&self, operand: &dyn Pack<T>, slab: &mut [T], indices: &Range<usize>, depths: &Range<usize>) {
        let nr = self.plan.nr;
        for (first, panel) in indices.clone().step_by(nr).zip(slab.chunks_exact_mut(nr * depths.len())) {
            operand.pack(panel, first, depths.start, self.kernels);
        }
    }

    fn finish(&self, index: usize, tile: &[T]) {
        let (rows, cols) = self.plan.tile(index);
        self.epilogue.apply(&Tile {
            row: rows.start,
            col: cols.start,
            rows: rows.len(),
            cols: cols.len(),
            data: tile,
            ld: self.plan.tn,
            kernels: self.kernels,
        });
    }
}
