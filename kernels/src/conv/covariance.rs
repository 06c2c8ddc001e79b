//! The covariance of a convolution's patches, by the plan of its geometry.

use super::assemble::{STRIP, Scratch};
use super::correlate::{SLAB, Slots, Task, TilePair, gathered_len};
use super::correlation::Correlation;
use super::geometry::Conv;
use super::groups::{self, SharedGroups};
use super::layout::Layout;
use super::output::Output;
use super::patches::{Index, Patches};
use super::plan::{Form, Plan};
use super::{image, reduced, sums};
use crate::covariance::{self as dense, Bias, Sharing, Spec};
use crate::element::{Element, Input};
use crate::engine::epilogue::{Blend, Shared, StoreSymmetric, Triangle};
use crate::engine::{self, Buffers, Engine, aligned};
use crate::par::Par;
use crate::view::{MatMut, View, ViewMut};
use dyn_stack::{MemStack, StackReq};

/// How patches become rows, and how their covariance is written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConvSpec<T> {
    /// Whether each output is a row, or the outputs of an image are averaged to one.
    pub sharing: Sharing,
    /// Which part of the output is written.
    pub triangle: Triangle,
    /// How the sum meets the output.
    pub blend: Blend<T>,
}

/// Multiply-adds below which a batch is computed on the calling thread.
const PARALLEL_WORK: u64 = 1 << 22;

/// Bytes of patches that an implicit unfold packs at once, unless one image has more.
const PATCH_BYTES: usize = 1 << 22;

/// For each group `out[g] <- beta out[g] + alpha sum over images and outputs of patch patch^T`; reduced: of the mean patch of each image.
/// `out` is `[groups, size, size]`, `size` being `plan.conv().factor_size()`; `x` `[N, C, Z, Y, X]`, any strides. `plan.multiply_adds()` for
/// each image; reduced `N size² / 2`.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn covariance<I: Input>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, 5>,
    plan: &Plan,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let conv = plan.conv();
    let (groups, size) = (conv.groups(), conv.factor_size());
    assert_eq!(out.shape(), [groups, size, size], "conv covariance: the output's shape");
    assert_eq!(x.shape(), conv.input_shape(x.shape()[0]), "conv covariance: the images' shape");
    let channels = conv.in_channels() / groups;
    let part = |g: usize| x.channels(g * channels..(g + 1) * channels);
    let par = sized(plan, x.shape()[0], par);
    if let (Form::Depthwise(depthwise), Sharing::Expand, Bias::Without) = (plan.form(), spec.sharing, conv.bias()) {
        // Rows are written along their columns; see the dense covariance.
        let [_, row_step, col_step] = out.strides().map(isize::unsigned_abs);
        let out = if spec.triangle == Triangle::Full && row_step < col_step { out.transposed() } else { out };
        return par.enter(|| depthwise.covariance(out, x, (conv, spec), par, stack));
    }
    let n = x.shape()[0];
    let outs = SharedGroups::new(out);
    let each = |par: Par| group_scratch::<I::Acc>(n, plan, spec.sharing, par);
    groups::for_each(groups, par, each, stack, &|g, par, stack| {
        // SAFETY: each group is borrowed once.
        group(unsafe { outs.matrix(g) }, part(g), plan, spec, par, stack);
    });
}

/// Scratch of [`covariance`] for `n` images.
pub fn scratch<T: Element>(n: usize, plan: &Plan, sharing: Sharing, par: Par) -> StackReq {
    let par = sized(plan, n, par);
    if let (Form::Depthwise(depthwise), Sharing::Expand, Bias::Without) = (plan.form(), sharing, plan.conv().bias()) {
        return depthwise.scratch::<T>(n, par);
    }
    groups::scratch(plan.conv().groups(), par, |par| group_scratch::<T>(n, plan, sharing, par))
}

/// The longest chain of additions into one entry of a [`covariance`] of `n` images.
pub fn depth<T: Element>(n: usize, plan: &Plan, sharing: Sharing, par: Par) -> usize {
    let conv = plan.conv();
    let bias = if conv.bias() == Bias::With { sums::depth(conv) + n } else { 0 };
    let depth = match (sharing, plan.form()) {
        (Sharing::Reduce, _) => {
            sums::depth(conv) + 1 + dense::depth::<T>([n, 1, conv.features()], conv.bias(), Sharing::Expand, par)
        }
        (_, Form::Pixels) => {
            dense::depth::<T>([n, conv.positions(), conv.features()], Bias::Without, Sharing::Expand, par)
                .max(unfold_depth::<T>(n, conv, par))
        }
        (_, Form::Unfold) => unfold_depth::<T>(n, conv, par),
        (_, Form::Depthwise(depthwise)) => depthwise.depth(n).max(correlation_depth::<T>(n, &depthwise.group)),
        (_, Form::Correlation(correlation)) => correlation_depth::<T>(n, correlation),
    };
    depth.max(bias)
}

fn correlation_depth<T: Element>(n: usize, correlation: &Correlation) -> usize {
    let layout = Layout::new::<T>(correlation, n);
    SLAB + layout.slabs(SLAB) + layout.chunks() + correlation.segments_of_entry()
}

/// Threads that this much work feeds.
fn sized(plan: &Plan, n: usize, par: Par) -> Par {
    if plan.multiply_adds().saturating_mul(n as u64) < PARALLEL_WORK { par.at_most(1) } else { par }
}

/// One group of channels.
fn group<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    plan: &Plan,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    // Rows are written along their columns; see the dense covariance.
    let [row_step, col_step] = out.strides().map(isize::unsigned_abs);
    let out = if spec.triangle == Triangle::Full && row_step < col_step { out.transpose() } else { out };
    par.enter(|| match (spec.sharing, plan.form()) {
        (Sharing::Reduce, _) => {
            let mean = I::Acc::from_f64(1.0 / plan.conv().positions() as f64);
            reduced::covariance(out, x, plan.conv(), mean, spec, par, stack);
        }
        (_, form) => {
            let (features, mut out) = (plan.conv().features(), out);
            let mut inner = out.rb_mut().submatrix(0..features, 0..features);
            match form {
                Form::Pixels => pixels(inner, x, plan.conv(), spec, par, stack),
                Form::Unfold => unfold(inner, x, plan.conv(), spec, par, stack),
                Form::Correlation(correlation) => {
                    correlate(inner.rb_mut(), x, (plan.conv(), correlation), spec, par, stack)
                }
                // With a bias, group by group.
                Form::Depthwise(depthwise) => {
                    correlate(inner.rb_mut(), x, (plan.conv(), &depthwise.group), spec, par, stack)
                }
            }
            if plan.conv().bias() == Bias::With {
                bias(out, x, plan.conv(), spec, par, stack);
            }
        }
    })
}

fn group_scratch<T: Element>(n: usize, plan: &Plan, sharing: Sharing, par: Par) -> StackReq {
    let conv = plan.conv();
    if sharing == Sharing::Reduce {
        return reduced::scratch::<T>(n, conv, par);
    }
    // Of the bias.
    let line = StackReq::new_aligned::<T>((conv.axes3()[2].size + conv.taps()) * par.degree(), engine::ALIGN);
    let form = match plan.form() {
        Form::Pixels => {
            dense::scratch::<T>([n, conv.positions(), conv.features()], Bias::Without, Sharing::Expand, par)
                .or(unfold_scratch::<T>(n, conv, par))
        }
        Form::Unfold => unfold_scratch::<T>(n, conv, par),
        Form::Correlation(correlation) => correlate_scratch::<T>(n, correlation, par),
        Form::Depthwise(depthwise) => correlate_scratch::<T>(n, &depthwise.group, par),
    };
    form.or(line)
}

fn pixels<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    conv: &Conv,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    // Pixels that do not follow on one another are gathered as patches of one tap.
    let Some(x) = x.pixels() else { return unfold(out, x, conv, spec, par, stack) };
    let ConvSpec { triangle, blend, .. } = *spec;
    let reduce_scale = num_traits::One::one();
    let spec = Spec { sharing: Sharing::Expand, reduce_scale, bias: Bias::Without, centre: None, triangle, blend };
    dense::covariance(out, x, &spec, par, stack);
}

/// Images of a block, and blocks: at least one, which writes the output where there are no images.
fn unfold_blocks<T: Element>(n: usize, conv: &Conv) -> (usize, usize) {
    let image = conv.features() * conv.positions() * size_of::<T>();
    let block = (PATCH_BYTES / image.max(1)).clamp(1, n.max(1));
    (block, n.div_ceil(block).max(1))
}

fn unfold_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    let (block, _) = unfold_blocks::<T>(n, conv);
    let last = n - n.saturating_sub(1) / block * block;
    let product =
        |images: usize| engine::scratch::<T>(conv.features(), conv.features(), images * conv.positions(), true, par);
    product(block).or(product(last))
}

fn unfold_depth<T: Element>(n: usize, conv: &Conv, par: Par) -> usize {
    let (block, blocks) = unfold_blocks::<T>(n, conv);
    blocks + engine::depth::<T>(conv.features(), conv.features(), block * conv.positions(), true, par)
}

fn unfold<I: Input>(
    mut out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    conv: &Conv,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let (block, blocks) = unfold_blocks::<I::Acc>(x.shape()[0], conv);
    for b in 0..blocks {
        let images = b * block..x.shape()[0].min((b + 1) * block);
        let patches = Patches::new(x.images(images), conv, Index::Features);
        let blend = if b == 0 { spec.blend } else { Blend { beta: num_traits::One::one(), ..spec.blend } };
        let triangle = if b + 1 == blocks { spec.triangle } else { Triangle::Lower };
        // SAFETY: the output has the product's shape.
        let epilogue = unsafe { StoreSymmetric::new(out.rb_mut(), blend, triangle) };
        Engine::symmetric(&patches, &epilogue, par).run(stack);
    }
}

/// The last row of a factor with bias: sums of the features, and the number of outputs.
fn bias<I: Input>(
    mut out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    conv: &Conv,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let (features, blend) = (conv.features(), spec.blend);
    let degree = par.degree();
    let (memory, _) = aligned::<I::Acc>(stack, (conv.axes3()[2].size + conv.taps()) * degree);
    let memory = Buffers::new(memory, degree);
    let shared = Shared::new(&mut out);
    let write = |i: usize, j: usize, value: I::Acc| {
        let places = [(i, j), (j, i)];
        for &(i, j) in if spec.triangle == Triangle::Full && i != j { &places[..] } else { &places[..1] } {
            let to = shared.at(i, j);
            // SAFETY: inside the output; the entries of a feature belong to its channel's task.
            unsafe {
                let old = if blend.beta == num_traits::Zero::zero() { blend.beta } else { blend.beta * *to };
                *to = blend.alpha * value + old;
            }
        }
    };
    par.for_each(x.shape()[1], &|worker, c| {
        // SAFETY: one task at a time has this worker's number; written before it is read.
        let scratch = unsafe { memory.part(worker) }.split_at_mut(conv.axes3()[2].size);
        sums::batch_sums(x, c, conv, scratch, |feature, sum| write(features, feature, sum));
    });
    write(features, features, I::Acc::from_f64((x.shape()[0] * conv.positions()) as f64));
}

/// Elements past the packed images that vectors and gathers may read.
pub(super) fn slack<T: Element>(par: Par) -> usize {
    2 * T::kernels(par.isa()).nr.max(8)
}

fn lens<T: Element>(n: usize, correlation: &Correlation, par: Par) -> [usize; 4] {
    let layout = Layout::new::<T>(correlation, n);
    let lanes = T::kernels(par.isa()).lanes;
    let pairs = correlation.tiles() * (correlation.tiles() + 1) / 2;
    let held = if layout.chunks() > 1 { pairs * layout.chunks() } else { par.degree() };
    let sums = Slots::largest(correlation, lanes).next_multiple_of(lanes);
    [
        layout.packed_len() + slack::<T>(par),
        sums * held,
        gathered_len(correlation) * par.degree(),
        Scratch::new(correlation, lanes).total() * par.degree(),
    ]
}

fn correlate_scratch<T: Element>(n: usize, correlation: &Correlation, par: Par) -> StackReq {
    StackReq::all_of(&lens::<T>(n, correlation, par).map(|len| StackReq::new_aligned::<T>(len, engine::ALIGN)))
}

/// The correlation form.
fn correlate<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    (conv, correlation): (&Conv, &Correlation),
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let (kernels, n) = (<I::Acc as Element>::kernels(par.isa()), x.shape()[0]);
    let layout = Layout::new::<I::Acc>(correlation, n);
    let [packed_len, sums_len, gathered_len, scratch_len] = lens::<I::Acc>(n, correlation, par);
    let (packed, stack) = aligned::<I::Acc>(stack, packed_len);
    let (sums, stack) = aligned::<I::Acc>(stack, sums_len);
    let (gathered, stack) = aligned::<I::Acc>(stack, gathered_len);
    let (scratch, _) = aligned::<I::Acc>(stack, scratch_len);

    let tiles = correlation.tiles();
    packed[layout.packed_len()..].iter_mut().for_each(|x| {
        x.write(num_traits::Zero::zero());
    });
    let packed = Buffers::new(packed, 1);
    par.for_each(n * tiles, &|_, task| {
        let (image, tile) = (task / tiles, task % tiles);
        // SAFETY: each image's tile is packed by one task.
        unsafe { image::pack(packed.as_mut_ptr(), x, (correlation, &layout), (image, tile), kernels) };
    });

    let (degree, chunks) = (par.degree(), layout.chunks());
    let pairs = tiles * (tiles + 1) / 2;
    let gathered = Buffers::new(gathered, degree);
    let scratch = Buffers::new(scratch, degree);
    let sums = Buffers::new(sums, if chunks > 1 { pairs * chunks } else { degree });
    let task = Task { correlation, layout: &layout, kernels, packed: packed.as_ptr() };
    let output = Output::new(out, conv, correlation, spec, kernels);
    par.for_each(pairs * chunks, &|worker, index| {
        let (pair, chunk) = (TilePair::new(index / chunks, tiles), index % chunks);
        let slots = Slots::new(correlation, pair, kernels.lanes);
        // SAFETY: one task at a time has this worker's number, and one task this chunk's sums.
        let (sums, gathered, scratch) = unsafe {
            (sums.part(if chunks > 1 { index } else { worker }), gathered.part(worker), scratch.part(worker))
        };
        // SAFETY: the images are packed; the buffers have the lengths that were asked for.
        unsafe { task.accumulate(pair, chunk, sums, gathered) };
        if chunks == 1 {
            // SAFETY: this task alone has this pair's part of the output.
            unsafe { output.write(pair, &slots, sums, 0..correlation.tile_width(pair.tiles[0]), scratch) };
        }
    });
    if chunks == 1 {
        return;
    }
    // The chunks of each pair are added in order, a piece a task; then the factor is written, some channels a task.
    const PIECE: usize = 1 << 14;
    let part_len = Slots::largest(correlation, kernels.lanes);
    let pieces = part_len.div_ceil(PIECE);
    par.for_each(pairs * pieces, &|_, index| {
        let (index, piece) = (index / pieces, index % pieces);
        let slots = Slots::new(correlation, TilePair::new(index, tiles), kernels.lanes);
        let range = piece * PIECE..slots.total.min((piece + 1) * PIECE);
        if range.is_empty() {
            return;
        }
        for chunk in 1..chunks {
            // SAFETY: pieces are disjoint, and this task has its own of each chunk; two distinct ranges of one length.
            unsafe {
                let sum = sums.part(index * chunks)[range.clone()].as_mut_ptr();
                let part = sums.part(index * chunks + chunk)[range.clone()].as_ptr();
                let one = num_traits::One::one();
                (kernels.blend)(sum, part, range.len(), one, one);
            }
        }
    });
    let strips = correlation.width.div_ceil(STRIP);
    par.for_each(pairs * strips, &|worker, index| {
        let (index, strip) = (index / strips, index % strips);
        let pair = TilePair::new(index, tiles);
        let channels = strip * STRIP..correlation.tile_width(pair.tiles[0]).min((strip + 1) * STRIP);
        if channels.is_empty() {
            return;
        }
        // SAFETY: read by all tasks of the pair, written by none; the scratch is this worker's, and this task alone has these
        // channels' part of the output.
        unsafe {
            let slots = Slots::new(correlation, pair, kernels.lanes);
            output.write(pair, &slots, sums.part(index * chunks), channels, scratch.part(worker));
        }
    });
}
