//! Sums of squares over groups of depth: `epilogue(sum_g (L_g R_g)²)`, squared entry by entry.
//!
//! ```text
//! for each tile of the output, on whichever thread is free
//!     for each group of depths, in order                     one datapoint
//!         tile = sum over the group's depths                 as in every product
//!         sums += tile²                                      both in L2
//!     epilogue(sums)
//! ```
//!
//! No matrix of the output's size is formed for a group.

use super::epilogue::Epilogue;
use super::pack::Pack;
use super::plan::{Plan, Region, aligned};
use super::{Buffers, Engine};
use crate::element::Element;
use crate::par::Par;
use dyn_stack::{MemStack, StackReq};

/// Sides of tiles: a multiple of every panel width, for which a tile, its sums and the slabs of a short group (`T = 16`: 12 kB) stay close.
const SIDE: usize = 96;

/// The product's plan with tiles for two, its depth in one chunk.
fn plan<T: Element>(m: usize, n: usize, k: usize, par: Par) -> Plan {
    let plan = Plan::new(m, n, k, Region::Full, T::kernels(par.isa()));
    Plan { tm: plan.tm.min(SIDE), tn: plan.tn.min(SIDE), chunks: 1, ..plan }
}

/// `epilogue(sum_g (left_g right_g^T)²)` with both operands indexed `[index, depth]`, group `g` the depths from `g size` to `(g+1) size`.
/// `m n k` multiply-adds and `m n k / size` more for the squares.
///
/// # Panics
/// If depths differ or are no multiple of `size`, or `stack` holds less than [`scratch`].
pub fn run<T: Element>(
    left: &dyn Pack<T>,
    right: &dyn Pack<T>,
    size: usize,
    epilogue: &dyn Epilogue<T>,
    par: Par,
    stack: &mut MemStack,
) {
    let k = left.depth();
    assert!(k == right.depth() && size > 0 && k.is_multiple_of(size), "grouped: depths differ or are not whole groups");
    let plan = plan::<T>(left.extent(), right.extent(), k, par);
    let engine =
        Engine { left, right: Some(right), epilogue, plan, kernels: T::kernels(par.isa()), par: plan.par(par) };
    if plan.m > 0 && plan.n > 0 {
        engine.par.enter(|| engine.run_grouped(size, stack));
    }
}

/// Scratch of [`run`] for `m` and `n` indices and `k` depths.
pub fn scratch<T: Element>(m: usize, n: usize, k: usize, par: Par) -> StackReq {
    let plan = plan::<T>(m, n, k, par);
    // A second tile for each worker.
    plan.scratch::<T>(par).and(plan.tiles_scratch::<T>(par))
}

/// The longest chain of roundings of a term of a group's entry, for groups of `size`.
pub fn depth<T: Element>(m: usize, n: usize, size: usize, par: Par) -> usize {
    plan::<T>(m, n, size, par).depth()
}

impl<T: Element> Engine<'_, T> {
    fn run_grouped(&self, size: usize, stack: &mut MemStack) {
        let (plan, degree) = (&self.plan, self.par.degree());
        let (packed, stack) = self.pack_ahead(stack);
        let (l, r) = plan.slab_lens();
        let (slabs, stack) = aligned::<T>(stack, (l + r) * degree);
        let (tiles, stack) = aligned::<T>(stack, plan.tile_len() * degree);
        let (sums, _) = aligned::<T>(stack, plan.tile_len() * degree);
        let [slabs, tiles, sums] = [slabs, tiles, sums].map(|memory| Buffers::new(memory, degree));
        self.par.for_each(plan.tiles(), &|worker, index| {
            // SAFETY: one task at a time has this worker's number.
            let (slabs, tile, sums) = unsafe { (slabs.part(worker), tiles.part(worker), sums.part(worker)) };
            let (rows, cols) = plan.tile(index);
            sums.fill(T::zero());
            for first in (0..plan.k).step_by(size) {
                self.compute(index, first..first + size, packed, slabs, tile);
                let lines = sums.chunks_exact_mut(plan.tn).zip(tile.chunks_exact(plan.tn));
                for (sum, line) in lines.take(rows.len()) {
                    // SAFETY: the kernels belong to an ISA this CPU has; one line of each tile.
                    unsafe { (self.kernels.add_squares)(sum.as_mut_ptr(), line.as_ptr(), cols.len()) };
                }
            }
            self.finish(index, sums);
        });
    }
}
