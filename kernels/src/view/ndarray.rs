//! From and to ndarray's views of any rank that it counts at compile time (up to 6): the same memory, nothing is copied.

use super::{View, ViewMut};
use ::ndarray::{ArrayView, ArrayViewMut, Axis, Dim, Dimension, IntoDimension, Ix, ShapeBuilder, StrideShape};
use core::ptr::NonNull;

impl<'a, T, const R: usize> From<ArrayView<'a, T, Dim<[Ix; R]>>> for View<'a, T, R>
where
    [Ix; R]: IntoDimension<Dim = Dim<[Ix; R]>>,
    Dim<[Ix; R]>: Dimension,
{
    fn from(a: ArrayView<'a, T, Dim<[Ix; R]>>) -> Self {
        let (shape, strides) = axes(a.shape(), a.strides());
        // SAFETY: ndarray's view borrows these elements for 'a.
        unsafe { View::from_raw(a.as_ptr(), shape, strides) }
    }
}

impl<'a, T, const R: usize> From<ArrayViewMut<'a, T, Dim<[Ix; R]>>> for ViewMut<'a, T, R>
where
    [Ix; R]: IntoDimension<Dim = Dim<[Ix; R]>>,
    Dim<[Ix; R]>: Dimension,
{
    fn from(mut a: ArrayViewMut<'a, T, Dim<[Ix; R]>>) -> Self {
        let (shape, strides) = axes(a.shape(), a.strides());
        // SAFETY: ndarray's view borrows these elements, which are distinct, exclusively for 'a.
        unsafe { ViewMut::from_raw(a.as_mut_ptr(), shape, strides) }
    }
}

impl<'a, T, const R: usize> From<View<'a, T, R>> for ArrayView<'a, T, Dim<[Ix; R]>>
where
    [Ix; R]: IntoDimension<Dim = Dim<[Ix; R]>>,
    Dim<[Ix; R]>: Dimension,
{
    fn from(a: View<'a, T, R>) -> Self {
        let (lowest, shape) = lowest(a.as_ptr().cast_mut(), a.shape(), a.strides());
        // SAFETY: the view borrows these elements for 'a; strides are positive, from the element at the lowest address.
        let mut array = unsafe { ArrayView::from_shape_ptr(shape, lowest) };
        reversed(a.strides()).for_each(|axis| array.invert_axis(axis));
        array
    }
}

impl<'a, T, const R: usize> From<ViewMut<'a, T, R>> for ArrayViewMut<'a, T, Dim<[Ix; R]>>
where
    [Ix; R]: IntoDimension<Dim = Dim<[Ix; R]>>,
    Dim<[Ix; R]>: Dimension,
{
    fn from(mut a: ViewMut<'a, T, R>) -> Self {
        let (lowest, shape) = lowest(a.as_mut_ptr(), a.shape(), a.strides());
        // SAFETY: as above, and the elements are distinct and borrowed exclusively.
        let mut array = unsafe { ArrayViewMut::from_shape_ptr(shape, lowest) };
        reversed(a.strides()).for_each(|axis| array.invert_axis(axis));
        array
    }
}

fn axes<const R: usize>(shape: &[usize], strides: &[isize]) -> ([usize; R], [isize; R]) {
    (core::array::from_fn(|axis| shape[axis]), core::array::from_fn(|axis| strides[axis]))
}

/// The lowest address of a view, and its shape with the strides' absolute values: ndarray makes views of no others.
fn lowest<T, const R: usize>(ptr: *mut T, shape: [usize; R], strides: [isize; R]) -> (*mut T, StrideShape<Dim<[Ix; R]>>)
where
    [Ix; R]: IntoDimension<Dim = Dim<[Ix; R]>>,
    Dim<[Ix; R]>: Dimension,
{
    if shape.contains(&0) {
        // An empty view may point anywhere, with strides of any size.
        return (NonNull::dangling().as_ptr(), shape.into_dimension().into());
    }
    let back: isize = shape.iter().zip(&strides).map(|(&n, &s)| (n as isize - 1) * s.min(0)).sum();
    // The stride of an axis of one element is never taken.
    let steps: [usize; R] = core::array::from_fn(|k| if shape[k] == 1 { 0 } else { strides[k].unsigned_abs() });
    (ptr.wrapping_offset(back), shape.into_dimension().strides(steps.into_dimension()))
}

fn reversed<const R: usize>(strides: [isize; R]) -> impl Iterator<Item = Axis> {
    strides.into_iter().enumerate().filter(|&(_, s)| s < 0).map(|(axis, _)| Axis(axis))
}
