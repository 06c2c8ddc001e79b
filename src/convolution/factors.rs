//! The Kronecker factors of a convolution.

use super::{Side, check_fits, fits, images};
use crate::convolution::{Conv, FactorPlan};
use crate::covariance::{Centring, FactorOptions};
use crate::dense::check_finite;
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Bias, Element, Error, Input, MemBuffer, MemStack, Par, StackReq, View, ViewMut};
use foof_kernels::conv::{self as kernel, ConvSpec, errors as error_kernel};

/// For each group `A_g <- m A_g + (1-m) s sum_nt x_nt x_nt^T` over the patches `x_nt` of its channels (or, reduced, over each image's mean
/// patch), for images `x` `[N, C, sizes..]`. `out` is `[groups, f, f]`, with the geometry's bias `[groups, f + 1, f + 1]`. In the form that
/// `plan` chose: `plan.multiply_adds()` for each image; reduced `N f² / 2`. Memory: the images once more, and tiles; no unfolded matrix.
///
/// The scale `s` is [`Scaling::input`](crate::scaling::Scaling::input) of `N` and `T` outputs, `1/N` by default. Grosse and Martens 2016;
/// expand and reduce: Eschenhagen et al. 2023; FOOF's only factor: Benzing 2022.
///
/// Of `options`, the bias is the geometry's: [`Bias::With`] is refused where it has none. Centring is refused.
///
/// # Errors
/// [`Error::Shape`] (also for a number of axes other than the geometry's), [`Error::Parameter`] (also for a plan made for another element type
/// or instruction set), [`Error::Geometry`] where sizes overflow, [`Error::EmptyBatch`], [`Error::NotFinite`], [`Error::Scratch`]; `out` as it
/// was.
pub fn conv_input_factor<I: Input, const R: usize>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, R>,
    plan: &FactorPlan,
    options: &FactorOptions,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let conv = plan.conv();
    let images = images("inputs", conv, Side::Inputs, x)?;
    let spec = input_factor_spec(conv, out.shape(), &x.shape(), options)?;
    let suits = plan.suits::<I::Acc>(par);
    check_parameter("plan", conv.factor_size() as f64, suits, "a plan for this element type and instruction set")?;
    check_finite("inputs", x)?;
    check_scratch(stack, conv_input_factor_scratch::<I::Acc>(images.shape()[0], plan, options, par))?;
    kernel::covariance(out, images, plan, &spec, par, stack);
    Ok(())
}

/// For each group `B_g <- m B_g + (1-m) s sum_nt e_nt e_nt^T` over the outputs of its channels (or, reduced, over each image's sum), for
/// errors `e` `[N, o, outputs..]`, or `[N C, o, outputs..]` with `C` rows for each image, and `out` `[groups, o/groups, o/groups]`.
/// `N T o² / (2 groups)` multiply-adds.
///
/// The scale `s` is [`Scaling::error`](crate::scaling::Scaling::error): `1/(N T)` by default, reduced `1/N`. Sources as
/// [`conv_input_factor`]'s.
///
/// # Errors
/// As [`conv_input_factor`]'s; a bias, which errors do not have, is refused.
pub fn conv_error_factor<E: Input, const R: usize>(
    out: ViewMut<'_, E::Acc, 3>,
    errors: View<'_, E, R>,
    conv: &Conv,
    options: &FactorOptions,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let images = images("errors", conv, Side::Outputs, errors)?;
    let spec = error_factor_spec(conv, out.shape(), &errors.shape(), options)?;
    check_finite("errors", errors)?;
    check_scratch(stack, conv_error_factor_scratch::<E::Acc>(images.shape()[0], conv, options, par))?;
    error_kernel::error_covariance(out, images, conv, &spec, par, stack);
    Ok(())
}

/// Scratch of [`conv_input_factor`] for `n` rows of images.
pub fn conv_input_factor_scratch<T: Element>(
    n: usize,
    plan: &FactorPlan,
    options: &FactorOptions,
    par: Par,
) -> StackReq {
    match fits(plan.conv(), n) {
        true => kernel::scratch::<T>(n, plan, options.sharing, par),
        false => StackReq::OVERFLOW,
    }
}

/// Scratch of [`conv_error_factor`] for `n` rows of errors.
pub fn conv_error_factor_scratch<T: Element>(n: usize, conv: &Conv, options: &FactorOptions, par: Par) -> StackReq {
    if fits(conv, n) { error_kernel::scratch::<T>(n, conv, options.sharing, par) } else { StackReq::OVERFLOW }
}

/// [`conv_input_factor`] with scratch of its own.
///
/// # Errors
/// As [`conv_input_factor`].
pub fn conv_input_factor_alloc<I: Input, const R: usize>(
    out: ViewMut<'_, I::Acc, 3>,
    x: View<'_, I, R>,
    plan: &FactorPlan,
    options: &FactorOptions,
    par: Par,
) -> Result<(), Error> {
    let n = x.shape().first().copied().unwrap_or(0);
    check_fits(plan.conv(), n)?;
    let mut memory = MemBuffer::new(conv_input_factor_scratch::<I::Acc>(n, plan, options, par));
    conv_input_factor(out, x, plan, options, par, MemStack::new(&mut memory))
}

/// [`conv_error_factor`] with scratch of its own.
///
/// # Errors
/// As [`conv_error_factor`].
pub fn conv_error_factor_alloc<E: Input, const R: usize>(
    out: ViewMut<'_, E::Acc, 3>,
    errors: View<'_, E, R>,
    conv: &Conv,
    options: &FactorOptions,
    par: Par,
) -> Result<(), Error> {
    let n = errors.shape().first().copied().unwrap_or(0);
    check_fits(conv, n)?;
    let mut memory = MemBuffer::new(conv_error_factor_scratch::<E::Acc>(n, conv, options, par));
    conv_error_factor(out, errors, conv, options, par, MemStack::new(&mut memory))
}

/// Everything that can be wrong with an input factor but its images' values and its scratch, on any device; else how it is computed. The images' shape is checked as
/// they are viewed.
pub(crate) fn input_factor_spec<T: Element>(
    conv: &Conv,
    out: [usize; 3],
    x: &[usize],
    options: &FactorOptions,
) -> Result<ConvSpec<T>, Error> {
    let (groups, size) = (conv.groups(), conv.factor_size());
    check_shape("out", &[groups, size, size], &out)?;
    let bias = options.bias == conv.bias() || options.bias == Bias::Without;
    check_parameter("bias", 1.0, bias, "none, as the convolution has none")?;
    let n = check(conv, "inputs", x, options)?;
    Ok(spec(options, options.scaling.input(options.sharing, n, conv.positions())))
}

/// The same for an error factor.
pub(crate) fn error_factor_spec<T: Element>(
    conv: &Conv,
    out: [usize; 3],
    errors: &[usize],
    options: &FactorOptions,
) -> Result<ConvSpec<T>, Error> {
    let (groups, size) = (conv.groups(), conv.out_channels() / conv.groups());
    check_shape("out", &[groups, size, size], &out)?;
    check_parameter("bias", 1.0, options.bias == Bias::Without, "none: errors have no bias")?;
    let n = check(conv, "errors", errors, options)?;
    Ok(spec(options, options.scaling.error(options.sharing, n, conv.positions())))
}

/// What both factors ask of their options and batch; returns the number of datapoints.
fn check(conv: &Conv, argument: &'static str, x: &[usize], options: &FactorOptions) -> Result<usize, Error> {
    let raw = options.centring == Centring::Raw;
    check_parameter("centring", 1.0, raw, "Centring::Raw: patches of convolutions are not centred")?;
    let rows = x.first().copied().unwrap_or(0);
    options.check(rows)?;
    if rows == 0 {
        return Err(Error::EmptyBatch { argument, shape: x.to_vec() });
    }
    check_fits(conv, rows)?;
    Ok(rows / options.rows_per_datapoint)
}

fn spec<T: Element>(options: &FactorOptions, scale: f64) -> ConvSpec<T> {
    ConvSpec { sharing: options.sharing, triangle: options.triangle, blend: options.blend(scale) }
}
