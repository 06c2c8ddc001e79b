//! [`covariance`](crate::covariance) on a device: the Kronecker factors `A <- m A + (1-m) s X^T X` and `B <- m B + (1-m) s E^T E`.

use super::{MatMut, Scratch, ScratchReq, Stream, View};
use crate::covariance::{Centring, FactorOptions, Side};
use crate::{Error, Input};
use foof_cuda::covariance::{self as kernel, Spec};

/// [`input_factor`](crate::covariance::input_factor) on a device, enqueued. Inputs are not searched for NaN and infinity, which reach the factor. Sums of f32 that pass
/// 2^127 on their way, or inputs beyond it, may become NaN where the CPU has infinity.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::EmptyBatch`], with `out` as it was; [`Error::Cuda`]: scratch too small or of another
/// stream, memory of another device, a size of 2^31 and more, a launch.
pub fn input_factor<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    factor(Side::Input, out, x, options, stream, scratch)
}

/// [`error_factor`](crate::covariance::error_factor) on a device. As [`input_factor`].
///
/// # Errors
/// As [`input_factor`].
pub fn error_factor<I: Input>(
    out: MatMut<'_, I::Acc>,
    e: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    factor(Side::Error, out, e, options, stream, scratch)
}

/// Scratch of [`input_factor`] and [`error_factor`] for rows of `shape` `[N, T, d]`, or fewer datapoints: slots of a deep sum that is split among blocks, and rows that are
/// reduced or centred.
pub fn factor_scratch<I: Input>(shape: [usize; 3], options: &FactorOptions) -> ScratchReq {
    kernel::scratch::<I>(shape, &spec::<I>(Side::Input, shape, options))
}

/// [`input_factor`] with scratch of its own.
///
/// # Errors
/// As [`input_factor`], and [`Error::Cuda`] where memory is used up.
pub fn input_factor_alloc<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
) -> Result<(), Error> {
    factor_alloc(Side::Input, out, x, options, stream)
}

/// [`error_factor`] with scratch of its own.
///
/// # Errors
/// As [`input_factor_alloc`].
pub fn error_factor_alloc<I: Input>(
    out: MatMut<'_, I::Acc>,
    e: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
) -> Result<(), Error> {
    factor_alloc(Side::Error, out, e, options, stream)
}

fn spec<I: Input>(side: Side, shape: [usize; 3], options: &FactorOptions) -> Spec<I::Acc> {
    let scales = side.scales(shape, options);
    Spec {
        sharing: options.sharing,
        reduce_scale: scales.reduce,
        bias: options.bias,
        centre_scale: (options.centring == Centring::Centred).then_some(scales.mean),
        triangle: options.triangle,
        blend: scales.blend,
    }
}

fn factor<I: Input>(
    side: Side,
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    side.check(out.shape(), x.shape(), options)?;
    out.as_view().check_device("out", stream)?;
    x.check_device(side.argument(), stream)?;
    Ok(kernel::covariance(out, x, &spec::<I>(side, x.shape(), options), stream, scratch)?)
}

fn factor_alloc<I: Input>(
    side: Side,
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    stream: &Stream,
) -> Result<(), Error> {
    // Before the memory for them: options that cannot be have no scratch.
    side.check(out.shape(), x.shape(), options)?;
    let mut scratch = Scratch::new(stream, factor_scratch::<I>(x.shape(), options))?;
    factor(side, out, x, options, stream, &mut scratch)
}
