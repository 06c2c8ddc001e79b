//! Tensors of images: `[N, C, Z, Y, X]`, and what is cut out of them.

use super::{MatMut, View, ViewMut};
use core::ops::Range;

/// The shape and strides of images `[N, C, X]`, `[N, C, Y, X]` or `[N, C, Z, Y, X]` with axes of size one in front of their spatial axes; `None` for
/// another rank.
pub fn image_axes<const R: usize>(from: [usize; R], steps: [isize; R]) -> Option<([usize; 5], [isize; 5])> {
    if !(3..=5).contains(&R) {
        return None;
    }
    let (mut shape, mut strides) = ([1; 5], [0; 5]);
    for axis in 0..R {
        let to = if axis < 2 { axis } else { axis + 5 - R };
        (shape[to], strides[to]) = (from[axis], steps[axis]);
    }
    Some((shape, strides))
}

/// The shape and strides of images `[N, C, Z, Y, X]` as `[N, Z Y X, C]`, one pixel a row, where the spatial axes follow on one another.
pub fn pixel_axes([n, c, z, y, x]: [usize; 5], [ns, cs, zs, ys, xs]: [isize; 5]) -> Option<([usize; 3], [isize; 3])> {
    // The stride of an axis of size one does not count; the innermost longer one gives the step.
    let axes = [(z, zs), (y, ys), (x, xs)];
    let step = axes.iter().rev().find(|axis| axis.0 > 1).map_or(0, |axis| axis.1);
    let mut next = step;
    for &(size, stride) in axes.iter().rev() {
        if size > 1 && stride != next {
            return None;
        }
        next *= size as isize;
    }
    // Pixel t of an image lies at t times the step.
    Some(([n, z * y * x, c], [ns, step, cs]))
}

macro_rules! as_images {
    ($view:ident) => {
        impl<'a, T, const R: usize> $view<'a, T, R> {
            /// Images `[N, C, X]`, `[N, C, Y, X]` or `[N, C, Z, Y, X]` with axes of size one in front of their spatial axes,
            /// `[N, C, Z, Y, X]`; `None` for another rank.
            pub fn as_images(self) -> Option<$view<'a, T, 5>> {
                let (shape, strides) = image_axes(self.shape(), self.strides())?;
                // SAFETY: axes of size one reach no other elements.
                Some(unsafe { self.reshaped([0; R], shape, strides) })
            }
        }
    };
}

as_images!(View);
as_images!(ViewMut);

impl<T, const R: usize> View<'_, T, R> {
    /// The same tensor with its last axis moved to the second place: images `[N, .., C]` of a channels-last framework as `[N, C, ..]`. The
    /// identity below rank 3.
    pub fn channels_last(self) -> Self {
        let (mut shape, mut strides) = (self.shape(), self.strides());
        if R > 2 {
            shape[1..].rotate_right(1);
            strides[1..].rotate_right(1);
        }
        // SAFETY: the same elements.
        unsafe { self.reshaped([0; R], shape, strides) }
    }
}

impl<'a, T> View<'a, T, 5> {
    /// Channels `range` of all images.
    ///
    /// # Panics
    /// If the range is outside the shape.
    pub fn channels(self, range: Range<usize>) -> Self {
        let ([n, c, z, y, x], strides) = (self.shape(), self.strides());
        assert!(range.start <= range.end && range.end <= c, "channels {range:?} of {c}");
        // SAFETY: a part of the elements.
        unsafe { self.reshaped([0, range.start, 0, 0, 0], [n, range.len(), z, y, x], strides) }
    }

    /// Images `range`.
    ///
    /// # Panics
    /// If the range is outside the shape.
    pub fn images(self, range: Range<usize>) -> Self {
        let ([n, c, z, y, x], strides) = (self.shape(), self.strides());
        assert!(range.start <= range.end && range.end <= n, "images {range:?} of {n}");
        // SAFETY: a part of the elements.
        unsafe { self.reshaped([range.start, 0, 0, 0, 0], [range.len(), c, z, y, x], strides) }
    }

    /// `[N, Z Y X, C]`, one pixel a row, where the spatial axes follow on one another.
    pub(crate) fn pixels(self) -> Option<View<'a, T, 3>> {
        let (shape, strides) = pixel_axes(self.shape(), self.strides())?;
        // SAFETY: the same elements.
        Some(unsafe { self.reshaped([0; 5], shape, strides) })
    }
}

impl<'a, T> ViewMut<'a, T, 3> {
    /// The matrix of the last two axes at `index` of the first.
    ///
    /// # Panics
    /// If the index is outside the shape.
    pub fn matrix(self, index: usize) -> MatMut<'a, T> {
        let ([n, rows, cols], [_, rs, cs]) = (self.shape(), self.strides());
        assert!(index < n, "matrix {index} of {n}");
        // SAFETY: a part of the elements.
        unsafe { self.reshaped([index, 0, 0], [rows, cols], [rs, cs]) }
    }

    /// The same with the last two axes exchanged.
    pub(crate) fn transposed(self) -> Self {
        let ([n, rows, cols], [ns, rs, cs]) = (self.shape(), self.strides());
        // SAFETY: the same elements.
        unsafe { self.reshaped([0; 3], [n, cols, rows], [ns, cs, rs]) }
    }
}
