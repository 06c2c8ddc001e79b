//! Views: a shape and strides over borrowed memory, checked once when made.

mod any;
#[cfg(feature = "faer")]
mod faer;
mod images;
mod matrix;
#[cfg(feature = "ndarray")]
mod ndarray;
mod tensor;

pub use any::AnyView;
pub use images::{image_axes, pixel_axes};
pub use matrix::{MatMut, MatRef};
pub use tensor::{View, ViewMut};

use core::fmt;

/// Why a view cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewError {
    /// The product of sizes, or of a stride and a size, does not fit.
    Overflow,
    /// The view would reach outside the slice.
    OutOfBounds {
        /// First and last element reached, counted from the start of the slice.
        reach: (isize, isize),
        /// Length of the slice.
        len: usize,
    },
    /// Two indices of a mutable view could name the same element: sorted by size, each stride must exceed the reach of the smaller ones.
    Overlap {
        /// The axis whose stride is too small.
        axis: usize,
        /// Its stride.
        stride: isize,
    },
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewError::Overflow => f.write_str("shape and strides overflow"),
            ViewError::OutOfBounds { reach: (first, last), len } => {
                write!(f, "view reaches from element {first} to {last} of a slice of {len}")
            }
            ViewError::Overlap { axis, stride } => {
                write!(f, "stride {stride} of axis {axis} makes elements of a mutable view overlap")
            }
        }
    }
}

impl std::error::Error for ViewError {}

/// Row-major strides of a shape.
///
/// # Errors
/// [`ViewError::Overflow`].
pub fn row_major<const R: usize>(shape: [usize; R]) -> Result<[isize; R], ViewError> {
    let mut strides = [0; R];
    let mut step = 1isize;
    for axis in (0..R).rev() {
        strides[axis] = step;
        let size = isize::try_from(shape[axis].max(1)).map_err(|_| ViewError::Overflow)?;
        step = step.checked_mul(size).ok_or(ViewError::Overflow)?;
    }
    Ok(strides)
}

/// Row-major strides of a shape whose elements lie at the start of `len`: cheaper than the checks of any strides, and with the same outcome.
#[inline]
pub(crate) fn contiguous<const R: usize>(len: usize, shape: [usize; R]) -> Result<[isize; R], ViewError> {
    let strides = row_major(shape)?;
    match shape.iter().product::<usize>() <= len {
        true => Ok(strides),
        // Too long: the error says by how much.
        false => check_bounds(len, 0, shape, strides).map(|()| strides),
    }
}

/// First and last offset that the view reaches relative to element `[0, .., 0]`, or `None` if it is empty.
fn reach<const R: usize>(shape: [usize; R], strides: [isize; R]) -> Result<Option<(isize, isize)>, ViewError> {
    if shape.contains(&0) {
        return Ok(None);
    }
    let (mut first, mut last) = (0isize, 0isize);
    for (&size, &stride) in shape.iter().zip(&strides) {
        let size = isize::try_from(size).map_err(|_| ViewError::Overflow)?;
        let span = (size - 1).checked_mul(stride).ok_or(ViewError::Overflow)?;
        let end = if span < 0 { &mut first } else { &mut last };
        *end = end.checked_add(span).ok_or(ViewError::Overflow)?;
    }
    Ok(Some((first, last)))
}

/// Checks that the view stays within `len` elements when `[0, .., 0]` is at `offset`.
///
/// # Errors
/// [`ViewError::OutOfBounds`], [`ViewError::Overflow`].
pub fn check_bounds<const R: usize>(
    len: usize,
    offset: usize,
    shape: [usize; R],
    strides: [isize; R],
) -> Result<(), ViewError> {
    let Some((first, last)) = reach(shape, strides)? else { return Ok(()) };
    let offset = isize::try_from(offset).map_err(|_| ViewError::Overflow)?;
    let first = offset.checked_add(first).ok_or(ViewError::Overflow)?;
    let last = offset.checked_add(last).ok_or(ViewError::Overflow)?;
    match first >= 0 && (last as usize) < len {
        true => Ok(()),
        false => Err(ViewError::OutOfBounds { reach: (first, last), len }),
    }
}

/// Sufficient for disjointness, and what every layout in use satisfies: sorted by size, each stride exceeds the reach of all smaller ones.
///
/// # Errors
/// [`ViewError::Overlap`], [`ViewError::Overflow`].
pub fn check_overlap<const R: usize>(shape: [usize; R], strides: [isize; R]) -> Result<(), ViewError> {
    if shape.contains(&0) {
        return Ok(());
    }
    let mut axes: [usize; R] = core::array::from_fn(|axis| axis);
    axes.sort_unstable_by_key(|&axis| strides[axis].unsigned_abs());
    let mut covered = 0usize;
    for axis in axes {
        if shape[axis] == 1 {
            continue;
        }
        let stride = strides[axis].unsigned_abs();
        if stride <= covered {
            return Err(ViewError::Overlap { axis, stride: strides[axis] });
        }
        let span = (shape[axis] - 1).checked_mul(stride).ok_or(ViewError::Overflow)?;
        covered = covered.checked_add(span).ok_or(ViewError::Overflow)?;
    }
    Ok(())
}
