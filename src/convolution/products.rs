//! The layer's own products.

use super::{Side, check_fits, fits, images, images_mut};
use crate::convolution::Conv;
use crate::error::{check_scratch, check_shape};
use crate::{Blend, Element, Error, Input, MatMut, MatRef, MemBuffer, MemStack, Par, StackReq, View, ViewMut};
use foof_kernels::conv::product as kernel;

/// `Y_n <- beta Y_n + alpha W patches(x_n)^T` (and the bias, to every output): `s = W x` of a convolution. `x` is `[N, C, sizes..]`, `weights`
/// `[o, f]` or with bias `[o, f + 1]`, `out` `[N, o, outputs..]`, any strides; `beta = 0` does not read `out`. `N T o f` multiply-adds.
/// Memory: tiles. Values that are not finite flow through.
///
/// # Errors
/// [`Error::Shape`] (also for a number of axes other than the geometry's), [`Error::Geometry`] where sizes overflow, [`Error::Scratch`]; `out`
/// as it was.
pub fn conv_forward<W: Input, I: Input<Acc = W::Acc>, const R: usize>(
    out: ViewMut<'_, W::Acc, R>,
    blend: Blend<W::Acc>,
    x: View<'_, I, R>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let x = images("x", conv, Side::Inputs, x)?;
    let n = x.shape()[0];
    check_shape("weights", &conv.weight_shape(), &weights.shape())?;
    let out = images_mut("out", conv, Side::Outputs, n, out)?;
    check_fits(conv, n)?;
    check_scratch(stack, kernel::forward_scratch::<W::Acc>(n, conv, par))?;
    kernel::forward(out, blend, x, weights, conv, par, stack);
    Ok(())
}

/// `U <- beta U + alpha sum_n E_n patches(x_n)`: with `alpha = 1/N` the mean gradient of the weights, for errors `errors = dL_n/ds_n`
/// `[N, o, outputs..]` and inputs `x` `[N, C, sizes..]`. `out` is `[o, f]`, with bias `[o, f + 1]`, whose last column sums the errors.
/// `N T o f` multiply-adds.
///
/// # Errors
/// As [`conv_forward`].
pub fn conv_weight_gradient<E: Input, I: Input<Acc = E::Acc>, const R: usize>(
    out: MatMut<'_, E::Acc>,
    blend: Blend<E::Acc>,
    errors: View<'_, E, R>,
    x: View<'_, I, R>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let x = images("x", conv, Side::Inputs, x)?;
    let n = x.shape()[0];
    super::check_images("errors", conv, Side::Outputs, n, &errors.shape())?;
    let errors = images("errors", conv, Side::Outputs, errors)?;
    check_shape("out", &conv.weight_shape(), &out.shape())?;
    check_fits(conv, n)?;
    check_scratch(stack, kernel::weight_gradient_scratch::<E::Acc>(n, conv, par))?;
    kernel::weight_gradient(out, blend, errors, x, conv, par, stack);
    Ok(())
}

/// `D_n <- beta D_n + alpha fold(E_n^T W)`: the gradient with respect to the inputs, the adjoint of [`conv_forward`] without its bias. `errors`
/// are `[N, o, outputs..]`, `weights` `[o, f]` or `[o, f + 1]`, `out` `[N, C, sizes..]`. Every entry is written once: patches that overlap
/// are summed in registers. `N T o f` multiply-adds.
///
/// # Errors
/// As [`conv_forward`].
pub fn conv_input_gradient<W: Input, E: Input<Acc = W::Acc>, const R: usize>(
    out: ViewMut<'_, W::Acc, R>,
    blend: Blend<W::Acc>,
    errors: View<'_, E, R>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let errors = images("errors", conv, Side::Outputs, errors)?;
    let n = errors.shape()[0];
    check_shape("weights", &conv.weight_shape(), &weights.shape())?;
    let out = images_mut("out", conv, Side::Inputs, n, out)?;
    check_fits(conv, n)?;
    check_scratch(stack, kernel::input_gradient_scratch::<W::Acc>(n, conv, par))?;
    kernel::input_gradient(out, blend, errors, weights, conv, par, stack);
    Ok(())
}

/// Scratch of [`conv_forward`] for `n` images; `T` is the type that is accumulated.
pub fn conv_forward_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    if fits(conv, n) { kernel::forward_scratch::<T>(n, conv, par) } else { StackReq::OVERFLOW }
}

/// Scratch of [`conv_weight_gradient`] for `n` images.
pub fn conv_weight_gradient_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    if fits(conv, n) { kernel::weight_gradient_scratch::<T>(n, conv, par) } else { StackReq::OVERFLOW }
}

/// Scratch of [`conv_input_gradient`] for `n` images: the weights by tap, and tiles.
pub fn conv_input_gradient_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    if fits(conv, n) { kernel::input_gradient_scratch::<T>(n, conv, par) } else { StackReq::OVERFLOW }
}

/// Images of a view: its first axis.
fn count<T, const R: usize>(x: View<'_, T, R>) -> usize {
    x.shape().first().copied().unwrap_or(0)
}

/// [`conv_forward`] with scratch of its own.
///
/// # Errors
/// As [`conv_forward`].
pub fn conv_forward_alloc<W: Input, I: Input<Acc = W::Acc>, const R: usize>(
    out: ViewMut<'_, W::Acc, R>,
    blend: Blend<W::Acc>,
    x: View<'_, I, R>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
) -> Result<(), Error> {
    check_fits(conv, count(x))?;
    let mut memory = MemBuffer::new(conv_forward_scratch::<W::Acc>(count(x), conv, par));
    conv_forward(out, blend, x, weights, conv, par, MemStack::new(&mut memory))
}

/// [`conv_weight_gradient`] with scratch of its own.
///
/// # Errors
/// As [`conv_forward`].
pub fn conv_weight_gradient_alloc<E: Input, I: Input<Acc = E::Acc>, const R: usize>(
    out: MatMut<'_, E::Acc>,
    blend: Blend<E::Acc>,
    errors: View<'_, E, R>,
    x: View<'_, I, R>,
    conv: &Conv,
    par: Par,
) -> Result<(), Error> {
    check_fits(conv, count(x))?;
    let mut memory = MemBuffer::new(conv_weight_gradient_scratch::<E::Acc>(count(x), conv, par));
    conv_weight_gradient(out, blend, errors, x, conv, par, MemStack::new(&mut memory))
}

/// [`conv_input_gradient`] with scratch of its own.
///
/// # Errors
/// As [`conv_forward`].
pub fn conv_input_gradient_alloc<W: Input, E: Input<Acc = W::Acc>, const R: usize>(
    out: ViewMut<'_, W::Acc, R>,
    blend: Blend<W::Acc>,
    errors: View<'_, E, R>,
    weights: MatRef<'_, W>,
    conv: &Conv,
    par: Par,
) -> Result<(), Error> {
    check_fits(conv, count(errors))?;
    let mut memory = MemBuffer::new(conv_input_gradient_scratch::<W::Acc>(count(errors), conv, par));
    conv_input_gradient(out, blend, errors, weights, conv, par, MemStack::new(&mut memory))
}
