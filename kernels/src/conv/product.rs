//! The layer's own products: outputs, and gradients of inputs and weights. Patches are formed while packing; no unfolded matrix exists.
//!
//! ```text
//! forward          Y[n, o, y]  =  sum over c, p      W[o, (c, p)] X[n, c, s y + d p - pad]     (+ bias)
//! weight gradient  U[o, (c, p)]  =  sum over n, y    E[n, o, y] X[n, c, s y + d p - pad]       (bias: sum of E)
//! input gradient   D[n, c, u]  =  sum over o, p      W[o, (c, p)] E[n, o, (u + pad - d p) / s]     where that is an output
//! ```
//!
//! The input gradient is a product for each phase `u mod s` of the image: pixels of one phase read the same taps, and consecutive outputs
//! of `E`. So every pixel is written once, by one tile: nothing is added up in memory, no tile waits for another. All three take
//! `N T o f` multiply-adds, `f` features of a group (input gradient with stride 1: `N o f` for each pixel).

use super::geometry::{Conv, FeatureOrder};
use super::groups::{self, SharedTensor};
use super::patches::{Index, Patches, Window};
use super::phase::{Phase, TapRows, phases};
use super::store::StoreTensor;
use crate::covariance::Bias;
use crate::element::{Element, Input};
use crate::engine::epilogue::Blend;
use crate::engine::pack::{Pack, Strided, WithOne, WithOneDepth};
use crate::engine::{self, ALIGN, Buffers, Engine, aligned};
use crate::par::Par;
use crate::view::{MatMut, MatRef, View, ViewMut};
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};

/// Multiply-adds below which a batch is computed on the calling thread.
const PARALLEL_WORK: usize = 1 << 20;

/// Threads that the products of `n` images feed.
fn sized(n: usize, conv: &Conv, par: Par) -> Par {
    let each = conv.positions().saturating_mul(conv.factor_size()).saturating_mul(conv.out_channels());
    if each.saturating_mul(n) < PARALLEL_WORK { par.at_most(1) } else { par }
}

/// Input and output channels of a group.
fn channels(conv: &Conv) -> [usize; 2] {
    [conv.in_channels(), conv.out_channels()].map(|channels| channels / conv.groups())
}

fn part(g: usize, channels: usize) -> Range<usize> {
    g * channels..(g + 1) * channels
}

fn check<A, B>(conv: &Conv, weights: [usize; 2], x: View<'_, A, 5>, e: View<'_, B, 5>) {
    let n = x.shape()[0];
    assert_eq!(weights, conv.weight_shape(), "convolution: the weights' shape");
    assert_eq!(x.shape(), conv.input_shape(n), "convolution: the inputs' shape");
    assert_eq!(e.shape(), conv.output_shape(n), "convolution: the outputs' shape");
}

/// `out[n] <- beta out[n] + alpha W patches(x[n])^T` for `x` `[N, C, Z, Y, X]`, `out` `[N, o, Z', Y', X']` and weights `[o, f]`, with bias
/// `[o, f + 1]`, any strides; `beta = 0` does not read `out`. `N T o f` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`forward_scratch`].
pub fn forward<W: Input, I: Input<Acc = W::Acc>>(
    out: ViewMut<'_, W::Acc, 5>,
    blend: Blend<W::Acc>,
    x: View<'_, I, 5>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) {
    check(conv, weights.shape(), x, out.as_ref());
    let (n, [c, o]) = (x.shape()[0], channels(conv));
    let par = sized(n, conv, par);
    let out = SharedTensor::new(out);
    groups::for_each(conv.groups(), par, forward_each::<W::Acc>(n, conv), stack, &|g, par, stack| {
        let left = Strided::rows(weights.row_range(part(g, o)));
        let patches = Patches::new(x.channels(part(g, c)), conv, Index::Outputs);
        // SAFETY: groups of outputs are disjoint; the product is o by the outputs of all images.
        let epilogue = unsafe { StoreTensor::new(out.part(part(g, o)), None, blend) };
        let run = |right: &dyn Pack<W::Acc>, stack| Engine::streamed(&left, right, &epilogue, par).run(stack);
        match conv.bias() {
            Bias::Without => run(&patches, stack),
            Bias::With => run(&WithOneDepth(patches), stack),
        }
    });
}

fn forward_each<T: Element>(n: usize, conv: &Conv) -> impl Fn(Par) -> StackReq {
    let ([_, o], outputs, features) = (channels(conv), n * conv.positions(), conv.factor_size());
    move |par| engine::streamed_scratch::<T>(o, outputs, features, par)
}

/// Scratch of [`forward`] for `n` images.
pub fn forward_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    groups::scratch(conv.groups(), sized(n, conv, par), forward_each::<T>(n, conv))
}

/// The longest chain of additions into one entry of a [`forward`] product.
pub fn forward_depth<T: Element>(n: usize, conv: &Conv, par: Par) -> usize {
    let [_, o] = channels(conv);
    engine::streamed_depth::<T>(o, n * conv.positions(), conv.factor_size(), par)
}

/// `out <- beta out + alpha sum_n E_n patches(x[n])` for errors `e` `[N, o, Z', Y', X']`, `x` `[N, C, Z, Y, X]` and `out` `[o, f]`, with bias
/// `[o, f + 1]`, whose last column sums the errors. `N T o f` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`weight_gradient_scratch`].
pub fn weight_gradient<E: Input, I: Input<Acc = E::Acc>>(
    out: MatMut<'_, E::Acc>,
    blend: Blend<E::Acc>,
    e: View<'_, E, 5>,
    x: View<'_, I, 5>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) {
    check(conv, out.shape(), x, e);
    let (n, [c, o]) = (x.shape()[0], channels(conv));
    let par = sized(n, conv, par);
    let (out, last) = by_tap(out, conv);
    let out = SharedTensor::new(out);
    groups::for_each(conv.groups(), par, weight_each::<E::Acc>(n, conv), stack, &|g, par, stack| {
        let left = Patches::samples(e.channels(part(g, o)), Index::Features);
        let windows = conv.axes3().each_ref().map(Window::of);
        let patches = Patches::windows(x.channels(part(g, c)), windows, FeatureOrder::TapsChannel, Index::Features);
        // SAFETY: groups of rows are disjoint; the product is o by the features, and one where there is a bias.
        let epilogue = unsafe { StoreTensor::new(out.part(part(g, o)), last, blend) };
        let run = |right: &dyn Pack<E::Acc>, stack| Engine::streamed(&left, right, &epilogue, par).run(stack);
        match conv.bias() {
            Bias::Without => run(&patches, stack),
            Bias::With => run(&WithOne(patches), stack),
        }
    });
}

/// Weights `[rows, f]` as `[1, rows, 1, taps, C / G]`, columns by tap, then channel, which is how patches pack best; and where the column of a bias
/// starts.
pub(crate) fn by_tap<'a, T>(mut out: MatMut<'a, T>, conv: &Conv) -> (ViewMut<'a, T, 5>, Option<isize>) {
    let ([rows, columns], [row_step, column_step]) = (out.shape(), out.strides());
    assert_eq!(columns, conv.factor_size(), "convolution: columns of the weights");
    let ([c, _], taps) = (channels(conv), conv.taps());
    let [channel_step, tap_step] = match conv.order() {
        FeatureOrder::ChannelTaps => [taps, 1],
        FeatureOrder::TapsChannel => [1, c],
    };
    let last = (conv.bias() == Bias::With).then_some(conv.features() as isize * column_step);
    let steps = [tap_step, channel_step].map(|step| step as isize * column_step);
    // SAFETY: the columns of the features, each once; those of the bias are left to the epilogue.
    let out =
        unsafe { ViewMut::from_raw(out.as_mut_ptr(), [1, rows, 1, taps, c], [0, row_step, 0, steps[0], steps[1]]) };
    (out, last)
}

fn weight_each<T: Element>(n: usize, conv: &Conv) -> impl Fn(Par) -> StackReq {
    let ([_, o], outputs, features) = (channels(conv), n * conv.positions(), conv.factor_size());
    move |par| engine::streamed_scratch::<T>(o, features, outputs, par)
}

/// Scratch of [`weight_gradient`] for `n` images.
pub fn weight_gradient_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    groups::scratch(conv.groups(), sized(n, conv, par), weight_each::<T>(n, conv))
}

/// The longest chain of additions into one entry of a [`weight_gradient`].
pub fn weight_gradient_depth<T: Element>(n: usize, conv: &Conv, par: Par) -> usize {
    let [_, o] = channels(conv);
    engine::streamed_depth::<T>(o, conv.factor_size(), n * conv.positions(), par)
}

/// `out[n] <- beta out[n] + alpha fold(E_n^T W)` for errors `e` `[N, o, Z', Y', X']`, weights `[o, f]` (of a bias `[o, f + 1]`, whose column
/// plays no part) and `out` `[N, C, Z, Y, X]`: the adjoint of [`forward`]. With strides `N T o f` multiply-adds, less at the borders.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`input_gradient_scratch`].
pub fn input_gradient<W: Input, E: Input<Acc = W::Acc>>(
    out: ViewMut<'_, W::Acc, 5>,
    blend: Blend<W::Acc>,
    e: View<'_, E, 5>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) {
    check(conv, weights.shape(), out.as_ref(), e);
    let (n, [c, o]) = (e.shape()[0], channels(conv));
    let par = sized(n, conv, par);
    let out = SharedTensor::new(out);
    groups::for_each(conv.groups(), par, input_each::<W::Acc>(n, conv), stack, &|g, par, stack| {
        let (memory, stack) = aligned::<W::Acc>(stack, o * c * conv.taps());
        let memory = Buffers::new(memory, conv.taps() * o);
        let rows = weights.row_range(part(g, o));
        par.for_each(o, &|_, row| {
            for tap in 0..conv.taps() {
                // SAFETY: one task has this row's parts, and fills them.
                let to = unsafe { memory.part(tap * o + row) };
                to.iter_mut().enumerate().for_each(|(c, to)| *to = rows.at([row, conv.feature(c, tap)]).widen());
            }
        });
        // SAFETY: filled above, and no longer written.
        let by_tap = unsafe { core::slice::from_raw_parts(memory.as_ptr(), o * c * conv.taps()) };
        for phase in phases(conv) {
            let left = TapRows::new(by_tap, conv, &phase, [o, c]);
            let windows = phase.axes.map(|axis| axis.window);
            let right = Patches::windows(e.channels(part(g, o)), windows, FeatureOrder::TapsChannel, Index::Outputs);
            // SAFETY: groups of channels are disjoint, and so are phases; the product is c by the phase's pixels of all images.
            let epilogue = unsafe { StoreTensor::new(phase.pixels(out.part(part(g, c)), conv), None, blend) };
            Engine::streamed(&left, &right, &epilogue, par).run(stack);
        }
    });
}

fn input_each<T: Element>(n: usize, conv: &Conv) -> impl Fn(Par) -> StackReq {
    let (conv, [c, o]) = (*conv, channels(conv));
    move |par| {
        let weights = StackReq::new_aligned::<T>(o * c * conv.taps(), ALIGN);
        let product = |phase: Phase| engine::streamed_scratch::<T>(c, n * phase.count(), o * phase.taps(), par);
        weights.and(phases(&conv).map(product).fold(StackReq::EMPTY, StackReq::or))
    }
}

/// Scratch of [`input_gradient`] for `n` images.
pub fn input_gradient_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    groups::scratch(conv.groups(), sized(n, conv, par), input_each::<T>(n, conv))
}

/// The longest chain of additions into one entry of an [`input_gradient`].
pub fn input_gradient_depth<T: Element>(n: usize, conv: &Conv, par: Par) -> usize {
    let [c, o] = channels(conv);
    let depth = |phase: Phase| engine::streamed_depth::<T>(c, n * phase.count(), o * phase.taps(), par);
    phases(conv).map(depth).max().unwrap_or(1)
}
