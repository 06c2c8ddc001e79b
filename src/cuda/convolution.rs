//! [`convolution`](crate::convolution) on a device: the Kronecker factors of a convolution.

use super::{Scratch, ScratchReq, Stream, View, ViewMut};
use crate::convolution::factors::{error_factor_spec, input_factor_spec};
use crate::convolution::{Conv, Side, check_fits, check_images};
use crate::covariance::FactorOptions;
use crate::error::check_parameter;
use crate::{Error, Input};
use foof_cuda::convolution::{self as kernel, DevicePlan, Plan};
use foof_cuda::tile::{Kind, Math};
use std::fmt;

/// How the input factor of a convolution is computed on a device, for a number of images or fewer and a type of elements: made once, with its tables in the
/// device's memory. A batch that is smaller takes as much less time as it has fewer positions, but writes as many partial sums. Printable.
#[derive(Debug)]
pub struct FactorPlan(DevicePlan);

impl FactorPlan {
    /// The plan with fewest multiply-adds for `images` images of elements `I`, in the stream's precision. It serves fewer images too: the last batch of an epoch.
    ///
    /// # Errors
    /// [`Error::Cuda`]: sizes beyond what the kernels count, memory that is used up.
    pub fn new<I: Input>(conv: &Conv, images: usize, stream: &Stream) -> Result<FactorPlan, Error> {
        let plan = Plan::new::<I>(conv, images, math::<I>(stream))?;
        Ok(FactorPlan(DevicePlan::new(plan, stream)?))
    }

    /// The convolution.
    pub fn conv(&self) -> &Conv {
        self.0.plan().conv()
    }

    /// Images of the largest batch.
    pub fn images(&self) -> usize {
        self.0.plan().images()
    }

    /// Multiply-adds of the largest batch, of whole tiles.
    pub fn multiply_adds(&self) -> u64 {
        self.0.plan().multiply_adds()
    }
}

impl fmt::Display for FactorPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.plan().fmt(f)
    }
}

fn math<I: Input>(stream: &Stream) -> Math {
    Math::of(Kind::of::<I>(), stream.precision(), stream.device().arch())
}

/// The images as the kernels take them. Checks their shape.
fn images<'a, T, const R: usize>(
    argument: &'static str,
    conv: &Conv,
    side: Side,
    x: View<'a, T, R>,
) -> Result<View<'a, T, 5>, Error> {
    let shape = x.shape();
    check_images(argument, conv, side, shape.first().copied().unwrap_or(0), &shape)?;
    // A convolution's images have three to five axes.
    x.as_images().ok_or_else(|| Error::Shape { argument, expected: vec![0; 5], got: shape.to_vec() })
}

/// [`conv_input_factor`](crate::convolution::conv_input_factor) on a device, enqueued, in the precision that `plan` was made for. Inputs are not searched for NaN and
/// infinity, which reach the factor. Memory: the images once more unless they are channels-last, a multiple of 16 bytes and of stride 1, and partial
/// sums; no unfolded matrix.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`] (also for a plan made for another element type or fewer images), [`Error::Geometry`],
/// [`Error::EmptyBatch`], with `out` as it was; [`Error::Cuda`]: scratch too small or of another stream, memory of another device, a launch.
pub fn conv_input_factor<I: Input, const R: usize>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, R>,
    plan: &FactorPlan,
    options: &FactorOptions,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let images = images("inputs", plan.conv(), Side::Inputs, x)?;
    let spec = input_factor_spec(plan.conv(), out.shape(), &x.shape(), options)?;
    let suits = plan.0.plan().suits::<I>();
    check_parameter("plan", plan.conv().factor_size() as f64, suits, "a plan for this element type")?;
    let n = images.shape()[0];
    check_parameter("plan", plan.images() as f64, plan.images() >= n, "a plan for as many images")?;
    x.check_device("inputs", stream)?;
    Ok(kernel::covariance(out, images, &plan.0, &spec, stream, scratch)?)
}

/// [`conv_error_factor`](crate::convolution::conv_error_factor) on a device. As [`conv_input_factor`], in the stream's precision.
///
/// # Errors
/// As [`conv_input_factor`]'s; a bias, which errors do not have, is refused.
pub fn conv_error_factor<E: Input, const R: usize>(
    out: ViewMut<'_, E::Acc, 3>,
    errors: View<'_, E, R>,
    conv: &Conv,
    options: &FactorOptions,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let images = images("errors", conv, Side::Outputs, errors)?;
    let spec = error_factor_spec(conv, out.shape(), &errors.shape(), options)?;
    errors.check_device("errors", stream)?;
    Ok(kernel::error_covariance(out, images, conv, math::<E>(stream), &spec, stream, scratch)?)
}

/// Scratch of [`conv_input_factor`].
pub fn conv_input_factor_scratch<I: Input>(plan: &FactorPlan, options: &FactorOptions) -> ScratchReq {
    kernel::scratch::<I>(plan.0.plan(), options.sharing)
}

/// Scratch of [`conv_error_factor`] for `n` rows of errors, or fewer.
pub fn conv_error_factor_scratch<E: Input>(n: usize, conv: &Conv, options: &FactorOptions) -> ScratchReq {
    kernel::error_scratch::<E>(n, conv, options.sharing)
}

/// [`conv_input_factor`] with scratch of its own.
///
/// # Errors
/// As [`conv_input_factor`], and [`Error::Cuda`] where memory is used up.
pub fn conv_input_factor_alloc<I: Input, const R: usize>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, R>,
    plan: &FactorPlan,
    options: &FactorOptions,
    stream: &Stream,
) -> Result<(), Error> {
    let mut scratch = Scratch::new(stream, conv_input_factor_scratch::<I>(plan, options))?;
    conv_input_factor(out, x, plan, options, stream, &mut scratch)
}

/// [`conv_error_factor`] with scratch of its own.
///
/// # Errors
/// As [`conv_input_factor_alloc`].
pub fn conv_error_factor_alloc<E: Input, const R: usize>(
    out: ViewMut<'_, E::Acc, 3>,
    errors: View<'_, E, R>,
    conv: &Conv,
    options: &FactorOptions,
    stream: &Stream,
) -> Result<(), Error> {
    let n = errors.shape().first().copied().unwrap_or(0);
    check_fits(conv, n)?;
    let mut scratch = Scratch::new(stream, conv_error_factor_scratch::<E>(n, conv, options))?;
    conv_error_factor(out, errors, conv, options, stream, &mut scratch)
}
