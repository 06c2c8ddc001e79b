//! Convolutions: their factors and their own products, without an unfolded matrix.
//!
//! A [`Conv`] is one geometry for all of them: one to three spatial axes ([`Axis`]: size, kernel, stride, dilation, padding on each side),
//! groups, a bias. Images are `[N, C, H, W]`, or with one or three spatial axes `[N, C, L]` and `[N, C, D, H, W]`; those of a channels-last
//! framework become such by [`View::channels_last`](crate::View::channels_last). Weights are matrices `[o, f]`, the tensor
//! `[o, C / groups, kernel..]` reshaped ([`FeatureOrder::ChannelTaps`]) or the channels-last `[o, kernel.., C / groups]`
//! ([`FeatureOrder::TapsChannel`]); with a bias `[o, f + 1]`, the bias as last column.
//!
//! A convolution is a layer that shares its weights over `T` outputs, the rows `x_nt` being its patches `[f]`: K-FAC for convolutions is
//! Grosse and Martens 2016, its two settings *expand* and *reduce* are Eschenhagen et al. 2023, FOOF is Benzing 2022.
//! ```
//! use foof::convolution::{Axis, Conv, FactorPlan, conv_forward_alloc, conv_input_factor_alloc};
//! use foof::covariance::FactorOptions;
//! use foof::{Blend, MatRef, Par, View, ViewMut};
//!
//! # fn main() -> Result<(), foof::Error> {
//! let axis = Axis::new(3, 3).padding(1);
//! let conv = Conv::new(1, 1, [axis, axis])?; // 3 x 3 taps over one channel of 3 x 3 pixels
//! let images = [1.0f32; 9];
//! let (weights, mut sums) = ([1.0f32; 9], [0.0; 9]);
//! let (x, par) = (View::new(&images, [1, 1, 3, 3])?, Par::seq());
//! let out = ViewMut::new(&mut sums, [1, 1, 3, 3])?;
//! conv_forward_alloc(out, Blend::set(1.0), x, MatRef::new(&weights, [1, 9])?, &conv, par)?;
//! assert_eq!(sums, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
//!
//! let mut factor = [0.0; 81];
//! let plan = FactorPlan::new::<f32>(&conv, par);
//! conv_input_factor_alloc(ViewMut::new(&mut factor, [1, 9, 9])?, x, &plan, &FactorOptions::default(), par)?;
//! assert_eq!(factor[4 * 9 + 4], 9.0); // the tap in the middle sees every pixel
//! # Ok(())
//! # }
//! ```

pub(crate) mod factors;
mod products;

pub use factors::{
    conv_error_factor, conv_error_factor_alloc, conv_error_factor_scratch, conv_input_factor, conv_input_factor_alloc,
    conv_input_factor_scratch,
};
pub use foof_kernels::conv::{Axis, Conv, FeatureOrder, GeometryError, Plan as FactorPlan};
pub use products::{
    conv_forward, conv_forward_alloc, conv_forward_scratch, conv_input_gradient, conv_input_gradient_alloc,
    conv_input_gradient_scratch, conv_weight_gradient, conv_weight_gradient_alloc, conv_weight_gradient_scratch,
};

use crate::error::check_shape;
use crate::{Error, View, ViewMut};

/// Which of a convolution's two tensors of images.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Inputs,
    Outputs,
}

/// `[n, channels, sizes..]` with the convolution's own number of axes.
fn shape_of(conv: &Conv, side: Side, n: usize) -> ([usize; 5], usize) {
    let [n, channels, sizes @ ..] = match side {
        Side::Inputs => conv.input_shape(n),
        Side::Outputs => conv.output_shape(n),
    };
    let (mut shape, rank) = ([n, channels, 0, 0, 0], conv.axes().len());
    shape[2..2 + rank].copy_from_slice(&sizes[3 - rank..]);
    (shape, 2 + rank)
}

/// Whether `shape` is that of `n` images on one side of a convolution.
pub(crate) fn check_images(
    argument: &'static str,
    conv: &Conv,
    side: Side,
    n: usize,
    shape: &[usize],
) -> Result<(), Error> {
    let (expected, rank) = shape_of(conv, side, n);
    check_shape(argument, &expected[..rank], shape)
}

/// The images as the kernels take them. Checks their shape.
pub(crate) fn images<'a, T, const R: usize>(
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

/// As [`images`], for an output of `n` images.
fn images_mut<'a, T, const R: usize>(
    argument: &'static str,
    conv: &Conv,
    side: Side,
    n: usize,
    x: ViewMut<'a, T, R>,
) -> Result<ViewMut<'a, T, 5>, Error> {
    let shape = x.shape();
    check_images(argument, conv, side, n, &shape)?;
    x.as_images().ok_or_else(|| Error::Shape { argument, expected: vec![0; 5], got: shape.to_vec() })
}

/// Whether all sizes that follow from `n` images, their products with the layer's own among them, fit.
fn fits(conv: &Conv, n: usize) -> bool {
    let padded = conv.axes3().map(|axis| axis.size.checked_add(axis.kernel));
    let product = |sizes: &[Option<usize>]| {
        let each = sizes.iter().try_fold(n, |product, &size| product.checked_mul(size?));
        each.is_some_and(|len| len <= isize::MAX as usize / 64)
    };
    let [z, y, x] = padded;
    let (channels, outputs) = (Some(conv.in_channels()), Some(conv.out_channels()));
    product(&[channels, z, y, x])
        && product(&[outputs, Some(conv.positions())])
        && product(&[channels, Some(conv.taps() + 1)])
        && product(&[outputs])
}

/// [`fits`], or an error.
pub(crate) fn check_fits(conv: &Conv, n: usize) -> Result<(), Error> {
    match fits(conv, n) {
        true => Ok(()),
        false => Err(GeometryError::Overflow { parameter: "N, channels and sizes", axis: None }.into()),
    }
}
