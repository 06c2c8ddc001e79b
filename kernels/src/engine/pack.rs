//! Loaders: how an operand becomes panels.
//!
//! A panel holds `nr` consecutive indices of an operand, depth by depth: element `p * nr + i` is index `first + i` at
//! depth `p`, zero where the operand has ended. Left and right operands share this one format (`mr` divides `nr`), so a
//! symmetric product packs once.

use super::kernels::Kernels;
use super::slab::Rows;
use crate::element::{Element, Input};
use crate::isa::Isa;
use crate::view::{MatRef, View};
use core::any::TypeId;
use core::ops::Range;

/// An operand `[extent, depth]` of a product, read panel by panel.
pub trait Pack<T: Element>: Sync {
    /// The number of indices: rows of a left operand, columns of a right one.
    fn extent(&self) -> usize;

    /// The length of the sums.
    fn depth(&self) -> usize;

    /// Fills `panel` (`nr` elements for each depth) with indices `first..first + nr`, starting at depth `start`.
    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>);

    /// The indices from `first` on where they lie, if at these depths each is contiguous in memory: then a left operand need not be packed.
    fn rows(&self, first: usize, depths: &Range<usize>) -> Option<Rows<T>> {
        let _ = (first, depths);
        None
    }
}

impl<T: Element, P: Pack<T> + ?Sized> Pack<T> for &P {
    fn extent(&self) -> usize {
        (**self).extent()
    }

    fn depth(&self) -> usize {
        (**self).depth()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        (**self).pack(panel, first, start, kernels);
    }

    fn rows(&self, first: usize, depths: &Range<usize>) -> Option<Rows<T>> {
        (**self).rows(first, depths)
    }
}

/// A strided operand, whose depth is one axis or two (datapoints and positions), of any input type.
pub struct Strided<'a, I> {
    /// `[outer depth, inner depth, index]`
    view: View<'a, I, 3>,
}

impl<'a, I: Input> Strided<'a, I> {
    /// A left operand: rows are indices, columns are depth.
    pub fn rows(m: MatRef<'a, I>) -> Self {
        Self::columns(m.transpose())
    }

    /// A right operand: columns are indices, rows are depth.
    pub fn columns(m: MatRef<'a, I>) -> Self {
        let ([k, n], [ks, ns]) = (m.shape(), m.strides());
        // SAFETY: a depth axis of size one is added.
        Strided { view: unsafe { m.reshaped([0, 0], [1, k, n], [0, ks, ns]) } }
    }

    /// `[N, T, d]` with every position a depth of its own.
    pub fn expand(x: View<'a, I, 3>) -> Self {
        let ([n, t, d], [ns, ts, ds]) = (x.shape(), x.strides());
        // One axis where the positions of a datapoint follow on the last one's.
        if t == 1 || ns == ts * t as isize {
            let step = if t == 1 { ns } else { ts };
            // SAFETY: position (n, t) lies at (n T + t) ts; the same elements.
            return Strided { view: unsafe { x.reshaped([0; 3], [1, n * t, d], [0, step, ds]) } };
        }
        Strided { view: x }
    }
}

impl<I: Input> Pack<I::Acc> for Strided<'_, I> {
    fn extent(&self) -> usize {
        self.view.shape()[2]
    }

    fn depth(&self) -> usize {
        self.view.shape()[0] * self.view.shape()[1]
    }

    fn pack(&self, panel: &mut [I::Acc], first: usize, start: usize, kernels: &Kernels<I::Acc>) {
        let [_, inner, extent] = self.view.shape();
        let [outer_step, depth_step, index_step] = self.view.strides();
        let nr = kernels.nr;
        let width = nr.min(extent - first);
        let mut depth = start;
        let mut rest = panel;
        while !rest.is_empty() {
            let (o, p) = (depth / inner, depth % inner);
            let count = (inner - p).min(rest.len() / nr);
            let (segment, tail) = rest.split_at_mut(count * nr);
            let at = o as isize * outer_step + p as isize * depth_step + first as isize * index_step;
            let source = Source { ptr: self.view.as_ptr().wrapping_offset(at), depth_step, index_step };
            // SAFETY: depths p..p + count < inner and indices first..first + width < extent lie inside the view.
            unsafe { source.fill(segment, width, kernels) };
            depth += count;
            rest = tail;
        }
    }

    fn rows(&self, first: usize, depths: &Range<usize>) -> Option<Rows<I::Acc>> {
        let [outer, inner, _] = self.view.shape();
        let [_, depth_step, index_step] = self.view.strides();
        let contiguous = outer == 1 && (depth_step == 1 || inner == 1) && TypeId::of::<I>() == TypeId::of::<I::Acc>();
        let at = first as isize * index_step + depths.start as isize;
        contiguous.then(|| Rows { ptr: self.view.as_ptr().wrapping_offset(at).cast(), step: index_step })
    }
}

/// The part of a strided operand that one panel segment reads.
struct Source<I> {
    ptr: *const I,
    depth_step: isize,
    index_step: isize,
}

impl<I: Input> Source<I> {
    /// # Safety
    /// Indices below `width` at the first `panel.len() / nr` depths must be readable.
    unsafe fn fill(&self, panel: &mut [I::Acc], width: usize, kernels: &Kernels<I::Acc>) {
        let nr = kernels.nr;
        let count = panel.len() / nr;
        let same_type = TypeId::of::<I>() == TypeId::of::<I::Acc>();
        // SAFETY (all blocks): the caller's contract; `panel` is `count` rows of nr.
        if self.index_step == 1 && same_type {
            let ptr = self.ptr.cast::<I::Acc>();
            // SAFETY: as above; I is the accumulator type, so the cast changes nothing.
            return unsafe { (kernels.copy_rows)(panel.as_mut_ptr(), nr, ptr, self.depth_step, width, count) };
        }
        if self.depth_step == 1 && same_type {
            let ptr = self.ptr.cast::<I::Acc>();
            // SAFETY: as above; `width` rows of `count` contiguous depths become `count` rows of `width` indices.
            unsafe { (kernels.transpose)(panel.as_mut_ptr(), nr, ptr, self.index_step, width, count) };
            if width < nr {
                panel.chunks_exact_mut(nr).for_each(|row| row[width..].fill(num_traits::Zero::zero()));
            }
            return;
        }
        // Transposing reads one index at a time over a few depths, so that both the lines read and the panel rows
        // written stay in L1.
        const RUN: usize = 16;
        for (block, rows) in panel.chunks_mut(RUN * nr).enumerate() {
            let base = self.ptr.wrapping_offset((block * RUN) as isize * self.depth_step);
            if self.index_step == 1 {
                for (p, row) in rows.chunks_exact_mut(nr).enumerate() {
                    let from = base.wrapping_offset(p as isize * self.depth_step);
                    for (i, x) in row[..width].iter_mut().enumerate() {
                        // SAFETY: as above.
                        *x = unsafe { *from.add(i) }.widen();
                    }
                }
            } else {
                for i in 0..width {
                    let from = base.wrapping_offset(i as isize * self.index_step);
                    for (p, row) in rows.chunks_exact_mut(nr).enumerate() {
                        // SAFETY: as above.
                        row[i] = unsafe { *from.offset(p as isize * self.depth_step) }.widen();
                    }
                }
            }
            for row in rows.chunks_exact_mut(nr) {
                row[width..].fill(num_traits::Zero::zero());
            }
        }
    }
}

/// An operand summed in the precision `S` of the product, at least its own `T`: widened while packing, by pieces that stay in L1; of the same
/// precision as it is.
pub(crate) struct Widened<T: 'static, P> {
    operand: P,
    kernels: &'static Kernels<T>,
}

impl<T: Element, P: Pack<T>> Widened<T, P> {
    pub(crate) fn new(operand: P, isa: Isa) -> Self {
        Widened { operand, kernels: T::kernels(isa) }
    }
}

impl<T: Element, S: Element, P: Pack<T>> Pack<S> for Widened<T, P> {
    fn extent(&self) -> usize {
        self.operand.extent()
    }

    fn depth(&self) -> usize {
        self.operand.depth()
    }

    fn pack(&self, panel: &mut [S], first: usize, start: usize, kernels: &Kernels<S>) {
        if TypeId::of::<T>() == TypeId::of::<S>() {
            return self.operand.pack(bytemuck::cast_slice_mut(panel), first, start, self.kernels);
        }
        // Panels are the wider the narrower their elements: a piece has the lanes of this panel, and more.
        let (nr, wide) = (kernels.nr, self.kernels.nr);
        debug_assert!(nr <= wide);
        let mut piece = [T::zero(); PIECE];
        let depths = PIECE / wide;
        for (part, rows) in panel.chunks_mut(depths * nr).enumerate() {
            let piece = &mut piece[..rows.len() / nr * wide];
            self.operand.pack(piece, first, start + part * depths, self.kernels);
            for (row, given) in rows.chunks_exact_mut(nr).zip(piece.chunks_exact(wide)) {
                row.iter_mut().zip(given).for_each(|(x, &given)| *x = S::from_f64(given.to_f64()));
            }
        }
    }

    fn rows(&self, first: usize, depths: &Range<usize>) -> Option<Rows<S>> {
        let same_type = TypeId::of::<T>() == TypeId::of::<S>();
        let rows = self.operand.rows(first, depths).filter(|_| same_type)?;
        Some(Rows { ptr: rows.ptr.cast(), step: rows.step })
    }
}

/// Elements of a piece of a panel that is packed on the stack: at least one depth of the widest, in L1.
pub(crate) const PIECE: usize = 1024;

/// One more index after the last, constant one: a bias as a virtual column.
pub struct WithOne<P>(pub P);

impl<T: Element, P: Pack<T>> Pack<T> for WithOne<P> {
    fn extent(&self) -> usize {
        self.0.extent() + 1
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let one = self.0.extent() - first;
        match one {
            0 => panel.fill(T::zero()),
            _ => self.0.pack(panel, first, start, kernels),
        }
        if one < kernels.nr {
            panel.chunks_exact_mut(kernels.nr).for_each(|row| row[one] = T::one());
        }
    }
}

/// One more depth after the last, constant one: a bias where indices are datapoints.
pub struct WithOneDepth<P>(pub P);

impl<T: Element, P: Pack<T>> Pack<T> for WithOneDepth<P> {
    fn extent(&self) -> usize {
        self.0.extent()
    }

    fn depth(&self) -> usize {
        self.0.depth() + 1
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let nr = kernels.nr;
        let (inner, one) = panel.split_at_mut((self.0.depth() - start).min(panel.len() / nr) * nr);
        if !inner.is_empty() {
            self.0.pack(inner, first, start, kernels);
        }
        if !one.is_empty() {
            let width = nr.min(self.extent() - first);
            one[..width].fill(T::one());
            one[width..].fill(T::zero());
        }
    }
}

/// A value for each index subtracted from it: centred activations.
pub struct Centred<'a, T, P>(pub P, pub &'a [T]);

impl<T: Element, P: Pack<T>> Pack<T> for Centred<'_, T, P> {
    fn extent(&self) -> usize {
        self.0.extent()
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        self.0.pack(panel, first, start, kernels);
        let centre = &self.1[first..self.extent().min(first + kernels.nr)];
        for row in panel.chunks_exact_mut(kernels.nr) {
            row.iter_mut().zip(centre).for_each(|(x, &c)| *x -= c);
        }
    }
}

/// A factor for each depth: datapoints with weights.
pub struct RowScaled<'a, T, P>(pub P, pub &'a [T]);

impl<T: Element, P: Pack<T>> Pack<T> for RowScaled<'_, T, P> {
    fn extent(&self) -> usize {
        self.0.extent()
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        self.0.pack(panel, first, start, kernels);
        for (row, &scale) in panel.chunks_exact_mut(kernels.nr).zip(&self.1[start..]) {
            row.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// Every entry squared: second moments in an eigenbasis.
pub struct Squared<P>(pub P);

impl<T: Element, P: Pack<T>> Pack<T> for Squared<P> {
    fn extent(&self) -> usize {
        self.0.extent()
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        self.0.pack(panel, first, start, kernels);
        panel.iter_mut().for_each(|x| *x *= *x);
    }
}

/// `[N, T, d]` with the positions of a datapoint summed and scaled: the *reduce* setting.
pub struct Reduced<'a, I: Input> {
    /// The activations or errors.
    pub view: View<'a, I, 3>,
    /// `1 / T` for a mean, 1 for a sum.
    pub scale: I::Acc,
}

impl<I: Input> Pack<I::Acc> for Reduced<'_, I> {
    fn extent(&self) -> usize {
        self.view.shape()[2]
    }

    fn depth(&self) -> usize {
        self.view.shape()[0]
    }

    fn pack(&self, panel: &mut [I::Acc], first: usize, start: usize, kernels: &Kernels<I::Acc>) {
        let [_, positions, extent] = self.view.shape();
        let [ns, ts, ds] = self.view.strides();
        let width = kernels.nr.min(extent - first);
        for (p, row) in panel.chunks_exact_mut(kernels.nr).enumerate() {
            row.fill(num_traits::Zero::zero());
            for t in 0..positions {
                let at = (start + p) as isize * ns + t as isize * ts + first as isize * ds;
                let from = self.view.as_ptr().wrapping_offset(at);
                for (i, x) in row[..width].iter_mut().enumerate() {
                    // SAFETY: datapoint start + p, position t and index first + i lie inside the view.
                    *x += unsafe { *from.offset(i as isize * ds) }.widen();
                }
            }
            row[..width].iter_mut().for_each(|x| *x *= self.scale);
        }
    }
}
