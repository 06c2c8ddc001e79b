//! Depthwise convolutions: one channel a group, so a vector holds the same place of as many groups as it has lanes.
//!
//! ```text
//! acc[class y][class x][lane]  +=  X_left[lane, y - delta_y, x] X_right[lane, y, x + delta_x]
//! ```
//!
//! The products, segments and slabs are those of `correlate`; only the register tile differs: its rows and columns are
//! classes, and each of its entries is a vector of groups.

use super::assemble::Scratch;
use super::correlate::{SLAB, Slots, Task, TilePair};
use super::correlation::Correlation;
use super::covariance::{ConvSpec, slack};
use super::geometry::Conv;
use super::groups::SharedGroups;
use super::image;
use super::layout::Layout;
use super::output::Output;
use crate::element::{Element, Input};
use crate::engine::microkernel::Depths;
use crate::engine::{ALIGN, Buffers, aligned};
use crate::par::Par;
use crate::simd::Simd;
use crate::view::{View, ViewMut};
use dyn_stack::{MemStack, StackReq};
use num_traits::{Float, Zero};

/// Rows and columns that a register tile is compiled for: powers of two.
pub(crate) const STEPS: usize = 3;

/// `c[i][j] (+)= sum_p l[p + i][lane] r[p + j][lane]`, `i < M` rows `row_step` elements apart, `j < V` vectors; `c` is row-major, `ldc` elements a
/// row. Per depth `M V` FMAs and `M + V` loads.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: `depths` names readable starts, at whose depths `l` is readable for
/// a vector of each row and `r` for V vectors; `c` is writable for M rows of V vectors.
#[inline(always)]
pub(crate) unsafe fn tile<T: Float, S: Simd<T>, const M: usize, const V: usize>(
    depths: &Depths,
    l: *const T,
    r: *const T,
    c: *mut T,
    ldc: usize,
    fresh: bool,
) {
    let Depths { left, right, runs, len, left_step, right_step, row_step, .. } = *depths;
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[S::splat(T::zero()); V]; M];
        for run in 0..runs {
            let (mut lp, mut rp) = (l.add(*left.add(run) * left_step), r.add(*right.add(run) * right_step));
            for _ in 0..len {
                let mut rights = [S::splat(T::zero()); V];
                for (j, vector) in rights.iter_mut().enumerate() {
                    *vector = S::load(rp.add(j * S::LANES));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let left = S::load(lp.offset(i as isize * row_step));
                    for (sum, &vector) in row.iter_mut().zip(&rights) {
                        *sum = S::fma(left, vector, *sum);
                    }
                }
                lp = lp.add(left_step);
                rp = rp.add(right_step);
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let at = c.add(i * ldc + j * S::LANES);
                S::store(at, if fresh { sum } else { S::add(S::load(at), sum) });
            }
        }
    }
}

/// The correlation forms of a depthwise convolution: of one group, and of a vector of groups at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Depthwise {
    pub(crate) group: Correlation,
    pub(crate) lanes: Correlation,
}

impl Depthwise {
    /// For panels of `panel` elements and vectors of `lanes`.
    pub(crate) fn new(conv: &Conv, panel: usize, lanes: usize) -> Depthwise {
        let group = Correlation::new(conv, panel);
        let lanes = Correlation { channels: lanes, width: lanes, lanes: true, ..group.clone() };
        Depthwise { group, lanes }
    }

    /// Elements of a worker's packed images, sums of all lanes, sums of one, and scratch.
    fn lens<T: Element>(&self, n: usize, par: Par) -> [usize; 4] {
        let lanes = T::kernels(par.isa()).lanes;
        let layout = Layout::whole(&self.lanes, n);
        [
            layout.packed_len() + slack::<T>(par),
            Slots::largest(&self.lanes, lanes),
            Slots::largest(&self.group, lanes).next_multiple_of(lanes),
            Scratch::new(&self.group, lanes).total(),
        ]
    }

    pub(crate) fn scratch<T: Element>(&self, n: usize, par: Par) -> StackReq {
        StackReq::all_of(&self.lens::<T>(n, par).map(|len| StackReq::new_aligned::<T>(len * par.degree(), ALIGN)))
    }

    /// The longest chain of additions into one entry.
    pub(crate) fn depth(&self, n: usize) -> usize {
        SLAB + Layout::whole(&self.lanes, n).slabs(SLAB) + self.group.segments_of_entry()
    }

    /// All groups, a vector of them a task.
    pub(crate) fn covariance<I: Input>(
        &self,
        out: ViewMut<'_, I::Acc, 3>,
        x: View<'_, I, 5>,
        (conv, spec): (&Conv, &ConvSpec<I::Acc>),
        par: Par,
        stack: &mut MemStack,
    ) {
        let kernels = <I::Acc as Element>::kernels(par.isa());
        let (n, groups, degree) = (x.shape()[0], conv.groups(), par.degree());
        let layout = Layout::whole(&self.lanes, n);
        let lens @ [_, _, _, scratch_len] = self.lens::<I::Acc>(n, par);
        let (packed, stack) = aligned::<I::Acc>(stack, lens[0] * degree);
        let (sums, stack) = aligned::<I::Acc>(stack, lens[1] * degree);
        let (single, stack) = aligned::<I::Acc>(stack, lens[2] * degree);
        let (scratch, _) = aligned::<I::Acc>(stack, scratch_len * degree);
        let [packed, sums, single, scratch] = [packed, sums, single, scratch].map(|part| Buffers::new(part, degree));
        let pair = TilePair { tiles: [0, 0] };
        let (many, one) = (Slots::new(&self.lanes, pair, kernels.lanes), Slots::new(&self.group, pair, kernels.lanes));
        let outs = SharedGroups::new(out);
        par.for_each(groups.div_ceil(kernels.lanes), &|worker, block| {
            let first = block * kernels.lanes;
            let count = kernels.lanes.min(groups - first);
            let part = x.channels(first..first + count);
            // SAFETY: one task at a time has this worker's number.
            let (packed, sums, single, scratch) =
                unsafe { (packed.part(worker), sums.part(worker), single.part(worker), scratch.part(worker)) };
            let written = if count < kernels.lanes { 0 } else { layout.packed_len() };
            packed[written..].fill(Zero::zero());
            for image in 0..n {
                // SAFETY: this task alone has this memory.
                unsafe { image::pack(packed.as_mut_ptr(), part, (&self.lanes, &layout), (image, 0), kernels) };
            }
            let task = Task { correlation: &self.lanes, layout: &layout, kernels, packed: packed.as_ptr() };
            // SAFETY: the images are packed; the sums have the slots' length.
            unsafe { task.accumulate(pair, 0, sums, &mut []) };
            for lane in 0..count {
                let columns = one.row.min(many.row / kernels.lanes);
                for (to, from) in single.chunks_exact_mut(one.row).zip(sums.chunks_exact(many.row)) {
                    for (column, to) in to[..columns].iter_mut().enumerate() {
                        *to = from[column * kernels.lanes + lane];
                    }
                }
                // SAFETY: each group belongs to one task.
                let mut out = unsafe { outs.matrix(first + lane) };
                let inner = out.rb_mut().submatrix(0..conv.features(), 0..conv.features());
                // SAFETY: as above; the sums hold the slots of one group.
                unsafe {
                    Output::new(inner, conv, &self.group, spec, kernels).write(pair, &one, single, 0..1, scratch)
                };
            }
        });
    }
}
