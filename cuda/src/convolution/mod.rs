//! Covariances of a convolution's patches on a device, without an unfolded matrix; the algorithms are those of `docs/convolution.md`, on one thread
//! block for each tile and chunk.

mod launch;
mod names;
mod params;
mod plan;
mod tables;
#[cfg(test)]
mod tests;

use crate::compile::Source;
use crate::covariance::{self, Spec};
use crate::error::CudaError;
use crate::memory::Buffer;
use crate::scratch::{Scratch, ScratchReq};
use crate::stream::Stream;
use crate::tile::{Kind, Math};
use crate::view::{View, ViewMut};
use foof_kernels::conv::{Conv, ConvSpec};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Element, Input, Triangle};
use launch::{Call, along_rows};
use plan::{Form, most_slots};
use tables::{Fold, Item, PairEntry, SumEntry};

pub use plan::{Plan, Rung};

/// Everything but the tiles.
pub(crate) static SOURCE: Source =
    Source { file: "conv_covariance.cu", text: include_str!("../../kernels/conv_covariance.cu") };

/// The correlation form's tiles.
pub(crate) static CORRELATE: Source =
    Source { file: "conv_correlate.cu", text: include_str!("../../kernels/conv_correlate.cu") };

/// The implicit unfold's tiles.
pub(crate) static UNFOLD: Source =
    Source { file: "conv_unfold.cu", text: include_str!("../../kernels/conv_unfold.cu") };

/// A [`Plan`] and its tables on a device. Made once for a geometry and the largest batch.
#[derive(Debug)]
pub struct DevicePlan {
    plan: Plan,
    tables: Option<DeviceTables>,
}

#[derive(Debug)]
struct DeviceTables {
    sums: Buffer<SumEntry>,
    items: Buffer<Item>,
    folds: Buffer<Fold>,
    pairs: Buffer<PairEntry>,
    /// Of each phase, its first sample along each axis.
    phases: Buffer<i32>,
}

impl DevicePlan {
    /// Copies the plan's tables to the stream's device.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn new(plan: Plan, stream: &Stream) -> Result<DevicePlan, CudaError> {
        let tables = match &plan.form {
            Form::Correlation(tables) => Some(DeviceTables {
                sums: Buffer::from_host(stream, &tables.sums)?,
                items: Buffer::from_host(stream, &tables.items)?,
                folds: Buffer::from_host(stream, &tables.folds)?,
                pairs: Buffer::from_host(stream, &tables.pairs)?,
                phases: Buffer::from_host(stream, &tables.first_samples())?,
            }),
            Form::Plain | Form::Pixels(_) | Form::Unfold(_) => None,
        };
        Ok(DevicePlan { plan, tables })
    }

    /// What it computes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// For each group `out[g] <- beta out[g] + alpha sum over images and outputs of patch patch^T`; reduced: of the mean patch of each image.
/// `out` is `[groups, size, size]`, `size` being the plan's `factor_size()`; `x` `[N, C, Z, Y, X]`, any strides. `plan.multiply_adds()`;
/// reduced `N size² / 2`.
///
/// # Errors
/// [`CudaError::OtherDevice`], [`CudaError::OtherStream`], [`CudaError::Scratch`], [`CudaError::TooLarge`] for images whose strides reach too far,
/// [`CudaError::Launch`], and those of compilation.
///
/// # Panics
/// If shapes disagree, or the plan was made for another type or fewer images.
pub fn covariance<I: Input>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, 5>,
    plan: &DevicePlan,
    spec: &ConvSpec<I::Acc>,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), CudaError> {
    let conv = plan.plan.conv();
    let (groups, size) = (conv.groups(), conv.factor_size());
    assert_eq!(out.shape(), [groups, size, size], "conv covariance: the output's shape");
    assert_eq!(x.shape(), conv.input_shape(x.shape()[0]), "conv covariance: the images' shape");
    assert!(x.shape()[0] <= plan.plan.images, "conv covariance: a plan for {} images", plan.plan.images);
    assert!(plan.plan.suits::<I>(), "conv covariance: a plan for another type");
    out.as_view().check_device("out", stream)?;
    x.check_device("x", stream)?;
    scratch.check(stream, self::scratch::<I>(&plan.plan, spec.sharing))?;
    let mean = I::Acc::from_f64(1.0 / conv.positions() as f64);
    run(out, x, plan, mean, spec, stream, scratch)
}

/// For each group `out[g] <- beta out[g] + alpha sum over images and outputs of e e^T`; reduced: of each image's sum over outputs. `out` is
/// `[groups, o, o]`, `o` the outputs of a group; `e` `[N, groups o, Z', Y', X']`, any strides.
///
/// # Errors
/// As [`covariance()`].
///
/// # Panics
/// If shapes disagree.
pub fn error_covariance<E: Input>(
    out: ViewMut<'_, E::Acc, 3>,
    e: View<'_, E, 5>,
    conv: &Conv,
    math: Math,
    spec: &ConvSpec<E::Acc>,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), CudaError> {
    let (outputs, n) = (conv.outputs_only(), e.shape()[0]);
    assert_eq!(
        out.shape(),
        [conv.groups(), outputs.features(), outputs.features()],
        "error covariance: the output's shape"
    );
    assert_eq!(e.shape(), conv.output_shape(n), "error covariance: the errors' shape");
    let plan = DevicePlan { plan: Plan::with_rung::<E>(&outputs, n, math, Rung::Pixels)?, tables: None };
    out.as_view().check_device("out", stream)?;
    e.check_device("errors", stream)?;
    scratch.check(stream, self::scratch::<E>(&plan.plan, spec.sharing))?;
    run(out, e, &plan, num_traits::One::one(), spec, stream, scratch)
}

/// Scratch of [`error_covariance`] for `n` images.
pub fn error_scratch<E: Input>(n: usize, conv: &Conv, sharing: Sharing) -> ScratchReq {
    // Whatever the math.
    let math = Math::all(Kind::of::<E>())[0];
    let plan = Plan::with_rung::<E>(&conv.outputs_only(), n, math, Rung::Pixels);
    plan.map_or(ScratchReq::OVERFLOW, |plan| scratch::<E>(&plan, sharing))
}

/// Arguments that agree. A reduced row is `reduce_scale` times the sum of an image's patches.
fn run<I: Input>(
    mut out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, 5>,
    plan: &DevicePlan,
    reduce_scale: I::Acc,
    spec: &ConvSpec<I::Acc>,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), CudaError> {
    if let (Form::Pixels(cut), Sharing::Expand, Some(pixels)) = (&plan.plan.form, spec.sharing, x.pixels()) {
        let groups = plan.plan.conv.groups();
        let rung = covariance::Rung::Tiles { math: plan.plan.math, tile: cut.tile };
        for group in 0..groups {
            let x = pixels.part(2, group, groups);
            covariance::covariance_by(rung, out.matrix(group), x, &pixel_spec(&plan.plan, spec), stream, scratch)?;
        }
        return Ok(());
    }
    let out = along_rows(out.as_view(), spec.triangle);
    Call { out, x, plan, reduce_scale, spec, stream }.run(&mut scratch.arena())
}

/// The dense covariance that one of pixels is.
fn pixel_spec<T: Element>(plan: &Plan, spec: &ConvSpec<T>) -> Spec<T> {
    Spec {
        sharing: Sharing::Expand,
        reduce_scale: T::one(),
        bias: plan.conv.bias(),
        centre_scale: None,
        triangle: spec.triangle,
        blend: spec.blend,
    }
}

/// Scratch of [`covariance()`].
pub fn scratch<I: Input>(plan: &Plan, sharing: Sharing) -> ScratchReq {
    let conv = plan.conv();
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let acc = |sizes: &[usize]| product(sizes).map_or(ScratchReq::OVERFLOW, ScratchReq::new::<I::Acc>);
    let groups = conv.groups();
    let slots = |slots: Option<usize>| slots.map_or(ScratchReq::OVERFLOW, |slots| acc(&[groups, slots]));
    let windows = acc(&[groups, plan.images, conv.features()]);
    let form = match &plan.form {
        Form::Plain => ScratchReq::EMPTY,
        Form::Unfold(cut) => slots(cut.slots()),
        // Pixels that do not follow on one another are unfolded.
        Form::Pixels(pixels) => {
            let rung = covariance::Rung::Tiles { math: plan.math, tile: pixels.tile };
            let (triangle, blend) = (Triangle::Full, Blend::set(num_traits::One::one()));
            let spec = pixel_spec(plan, &ConvSpec::<I::Acc> { sharing, triangle, blend });
            let shape = [plan.images, conv.positions(), conv.features()];
            covariance::scratch_by::<I>(rung, shape, &spec).or(slots(most_slots(conv, plan.images * conv.positions())))
        }
        Form::Correlation(tables) => {
            let [z, y, x] = tables.pitch;
            let packed = product(&[groups, tables.phase_count(), plan.images, z, y, x, tables.width]);
            let partials = acc(&[groups, tables.partials, tables.side * tables.side]);
            packed.map_or(ScratchReq::OVERFLOW, ScratchReq::new::<I>).and(partials).and(match conv.bias() {
                Bias::With => windows,
                Bias::Without => ScratchReq::EMPTY,
            })
        }
    };
    match sharing {
        Sharing::Expand => form,
        Sharing::Reduce => windows.and(slots(most_slots(conv, plan.images))),
    }
}
