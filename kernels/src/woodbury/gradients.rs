//! Inner products of gradients from the gradients themselves, a block of weights at a time.
//!
//! ```text
//! for each block of a few thousand weights
//!     for each row r, on whichever thread is free
//!         block[r] = E_r^T X_n of these weights               a tile on slabs that the task packs
//!     out += block block^T, lower triangle                    the engine
//! ```
//!
//! `R` times a few thousand elements are kept, never `R P`.

use super::layer::Block;
use crate::conv::patches::Index;
use crate::element::Element;
use crate::engine::epilogue::Epilogue;
use crate::engine::kernels::Kernels;
use crate::engine::pack::{Pack, Strided};
use crate::engine::slab::{Left, Panels, Part, Slab};
use crate::engine::{self, ALIGN, Buffers, Engine, aligned, slabs_of};
use crate::par::Par;
use crate::view::MatRef;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};

/// Weights of a block, about: enough depth that adding a product to the output costs little.
const WEIGHTS: usize = 8192;
/// Outputs of a block at most: a multiple of every panel width.
const OUTPUTS: usize = 96;
/// Depths packed at a time.
const DEPTHS: usize = 192;

/// Sides of a block of weights, in outputs and inputs.
#[derive(Clone, Copy)]
struct Cut {
    outputs: usize,
    inputs: usize,
}

impl Cut {
    fn new<T: Element>(block: &Block<'_, T>, nr: usize) -> Cut {
        let outputs = block.o.div_ceil(block.o.div_ceil(OUTPUTS));
        let most = (WEIGHTS / outputs).max(nr);
        let inputs = block.i.div_ceil(block.i.div_ceil(most)).next_multiple_of(nr);
        Cut { outputs, inputs }
    }

    fn weights(self) -> usize {
        self.outputs * self.inputs
    }

    /// Elements of both slabs.
    fn slabs(self, nr: usize) -> usize {
        (self.outputs.next_multiple_of(nr) + self.inputs) * DEPTHS
    }
}

/// Adds the lower triangle of all pairs of `block`'s gradients to what `out` writes. `stack` must hold [`scratch`].
pub(crate) fn run<T: Element, S: Element>(block: &Block<'_, T>, out: &dyn Epilogue<S>, par: Par, stack: &mut MemStack) {
    let kernels = S::kernels(par.isa());
    let (rows, cut) = (block.rows(), Cut::new(block, kernels.nr));
    let (memory, stack) = aligned::<S>(stack, rows * cut.weights());
    for o in (0..block.o).step_by(cut.outputs) {
        for i in (0..block.i).step_by(cut.inputs) {
            let corner = [o..block.o.min(o + cut.outputs), i..block.i.min(i + cut.inputs)];
            // Rows of a tile are whole panels long; the columns beyond the last weight are zero.
            let width = corner[1].len().next_multiple_of(kernels.nr);
            let weights = corner[0].len() * width;
            let gradients = Buffers::new(&mut memory[..rows * weights], rows);
            {
                let (slabs, _) = aligned::<S>(stack, cut.slabs(kernels.nr) * par.degree());
                let slabs = Buffers::new(slabs, par.degree());
                par.for_each(rows, &|worker, row| {
                    // SAFETY: one task at a time has this worker's number, and one task this row.
                    let (slabs, to) = unsafe { (slabs.part(worker), gradients.part(row)) };
                    let operands = block.row(row, Index::Features, par.isa());
                    gradient(
                        operands.each_ref().map(|operand| operand as &dyn Pack<S>),
                        &corner,
                        block.positions,
                        slabs,
                        to,
                        kernels,
                    );
                });
            }
            // SAFETY: every row has been written.
            let all = unsafe { core::slice::from_raw_parts(gradients.as_ptr(), rows * weights) };
            let all = MatRef::new(all, [rows, weights]).expect("the memory has the shape's length");
            Engine::symmetric(&Strided::rows(all), out, par).run(stack);
        }
    }
}

/// One row's gradient of a block of weights, rows of whole panels.
fn gradient<T: Element>(
    [x, e]: [&dyn Pack<T>; 2],
    [outputs, inputs]: &[Range<usize>; 2],
    positions: usize,
    slabs: &mut [T],
    to: &mut [T],
    kernels: &Kernels<T>,
) {
    let nr = kernels.nr;
    let width = inputs.len().next_multiple_of(nr);
    // The microkernel leaves vectors beyond the last column as they are.
    to.fill(T::zero());
    for depths in slabs_of(0..positions) {
        let (left, right) = slabs.split_at_mut(outputs.len().next_multiple_of(nr) * DEPTHS);
        let pack = |operand: &dyn Pack<T>, first: usize, count: usize, to: &mut [T]| {
            for (panel, memory) in to.chunks_exact_mut(nr * depths.len()).take(count.div_ceil(nr)).enumerate() {
                operand.pack(memory, first + panel * nr, depths.start, kernels);
            }
        };
        pack(e, outputs.start, outputs.len(), left);
        pack(x, inputs.start, inputs.len(), right);
        let panels = |memory: &[T]| Panels { ptr: memory.as_ptr(), step: nr * depths.len(), continued: false };
        let slab = Slab {
            rows: outputs.len(),
            cols: inputs.len(),
            depth: depths.len(),
            left: Left::Packed(panels(left)),
            right: panels(right),
            part: Part::Full,
        };
        // SAFETY: the panels hold these depths; rows of `to` are whole panels long.
        unsafe { slab.add(to.as_mut_ptr(), width, false, kernels) };
    }
}

/// Scratch of [`run`].
pub(crate) fn scratch<T: Element, S: Element>(block: &Block<'_, T>, par: Par) -> StackReq {
    let nr = S::kernels(par.isa()).nr;
    let (rows, cut) = (block.rows(), Cut::new(block, nr));
    let product = |weights: usize| engine::scratch::<S>(rows, rows, weights, true, par);
    let slabs = StackReq::new_aligned::<S>(cut.slabs(nr) * par.degree(), ALIGN);
    // The last blocks may be smaller: their products' scratch is not smaller for sure.
    let products = sizes(block, cut, nr).map(product).fold(StackReq::EMPTY, StackReq::or);
    StackReq::new_aligned::<S>(rows * cut.weights(), ALIGN).and(slabs.or(products))
}

/// The numbers of weights that blocks have, padding counted.
fn sizes<T: Element>(block: &Block<'_, T>, cut: Cut, nr: usize) -> impl Iterator<Item = usize> {
    let part = |extent: usize, side: usize| [side.min(extent), extent - (extent.div_ceil(side) - 1) * side];
    let (outputs, inputs) = (part(block.o, cut.outputs), part(block.i, cut.inputs));
    outputs.into_iter().flat_map(move |o| inputs.map(|i| o * i.next_multiple_of(nr)))
}

/// The roundings that a term passes: twice a gradient's chain, the product, and one addition for each block of weights.
pub(crate) fn depth<T: Element, S: Element>(block: &Block<'_, T>, par: Par) -> usize {
    let nr = S::kernels(par.isa()).nr;
    let (rows, cut) = (block.rows(), Cut::new(block, nr));
    let chain = DEPTHS.min(block.positions) + slabs_of(0..block.positions).count();
    let product = sizes(block, cut, nr).map(|k| engine::depth::<S>(rows, rows, k, true, par)).max().unwrap_or(0);
    2 * chain + product + block.o.div_ceil(cut.outputs) * block.i.div_ceil(cut.inputs)
}
