//! Tensor views of any rank.

use super::{ViewError, check_bounds, check_overlap, contiguous};
use core::any::TypeId;
use core::marker::PhantomData;

/// A read-only view of rank `R`: a shape and strides (in elements, of either sign) over borrowed memory.
#[derive(Debug)]
pub struct View<'a, T, const R: usize> {
    ptr: *const T,
    shape: [usize; R],
    strides: [isize; R],
    memory: PhantomData<&'a [T]>,
}

/// A mutable view of rank `R`, whose elements are distinct.
#[derive(Debug)]
pub struct ViewMut<'a, T, const R: usize> {
    ptr: *mut T,
    shape: [usize; R],
    strides: [isize; R],
    memory: PhantomData<&'a mut [T]>,
}

impl<T, const R: usize> Clone for View<'_, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const R: usize> Copy for View<'_, T, R> {}

// SAFETY: a View is a shared borrow of its elements, as `&[T]` is.
unsafe impl<T: Sync, const R: usize> Send for View<'_, T, R> {}
// SAFETY: as above.
unsafe impl<T: Sync, const R: usize> Sync for View<'_, T, R> {}
// SAFETY: a ViewMut is an exclusive borrow of its elements, as `&mut [T]` is.
unsafe impl<T: Send, const R: usize> Send for ViewMut<'_, T, R> {}
// SAFETY: through `&ViewMut` elements can only be read.
unsafe impl<T: Sync, const R: usize> Sync for ViewMut<'_, T, R> {}

fn same<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

fn offset<const R: usize>(index: [usize; R], strides: [isize; R]) -> isize {
    index.iter().zip(&strides).map(|(&i, &s)| i as isize * s).sum()
}

fn inside<const R: usize>(index: [usize; R], shape: [usize; R]) -> bool {
    index.iter().zip(&shape).all(|(i, n)| i < n)
}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// A contiguous row-major view of the start of `slice`.
    ///
    /// # Errors
    /// [`ViewError`] if the slice is too short or the shape overflows.
    #[inline(always)]
    pub fn new(slice: &'a [T], shape: [usize; R]) -> Result<Self, ViewError> {
        let strides = contiguous(slice.len(), shape)?;
        // SAFETY: as many elements follow one another from the start of `slice`, borrowed for 'a.
        Ok(unsafe { Self::from_raw(slice.as_ptr(), shape, strides) })
    }

    /// A view whose element `[i, j, ..]` is `slice[offset + i * strides[0] + j * strides[1] + ..]`.
    ///
    /// # Errors
    /// [`ViewError`] if an element would lie outside the slice, or an offset overflows.
    pub fn strided(slice: &'a [T], offset: usize, shape: [usize; R], strides: [isize; R]) -> Result<Self, ViewError> {
        check_bounds(slice.len(), offset, shape, strides)?;
        let ptr = slice.as_ptr().wrapping_add(offset);
        // SAFETY: check_bounds has shown every element to lie in `slice`, borrowed for 'a.
        Ok(unsafe { Self::from_raw(ptr, shape, strides) })
    }

    /// # Safety
    /// Every element must be valid for reads for `'a`, with no writer.
    pub(crate) unsafe fn from_raw(ptr: *const T, shape: [usize; R], strides: [isize; R]) -> Self {
        View { ptr, shape, strides, memory: PhantomData }
    }

    /// The same view, as of a [`ViewMut`].
    #[inline(always)]
    pub fn as_ref(&self) -> View<'a, T, R> {
        // SAFETY: the same elements, borrowed as long.
        unsafe { View::from_raw(self.ptr, self.shape, self.strides) }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// The strides, in elements.
    pub fn strides(&self) -> [isize; R] {
        self.strides
    }

    /// Whether some axis has size zero.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Address of element `[0, .., 0]`; dangling if the view is empty.
    pub fn as_ptr(&self) -> *const T {
        self.ptr
    }

    /// All elements, in the order in which they lie in memory, if nothing lies between them: whatever the order of the axes.
    pub fn memory(&self) -> Option<&'a [T]> {
        let mut axes: [usize; R] = core::array::from_fn(|axis| axis);
        axes.sort_unstable_by_key(|&axis| self.strides[axis]);
        let mut len = 1;
        for axis in axes.into_iter().filter(|&axis| self.shape[axis] != 1) {
            if self.is_empty() || self.strides[axis] != len as isize {
                return None;
            }
            len *= self.shape[axis];
        }
        // SAFETY: the elements are `len` consecutive ones, the first the lowest, borrowed for 'a.
        Some(unsafe { core::slice::from_raw_parts(self.ptr, len) })
    }

    /// The last axis at the other indices of `index`, if its elements are contiguous and the line exists.
    pub fn line(&self, index: [usize; R]) -> Option<&'a [T]> {
        let (last, mut start) = (R.checked_sub(1)?, index);
        start[last] = 0;
        let contiguous = self.strides[last] == 1 || self.shape[last] == 1;
        // SAFETY: the line lies inside the shape; its elements follow one another.
        (inside(start, self.shape) && contiguous).then(|| unsafe {
            core::slice::from_raw_parts(self.ptr.offset(offset(start, self.strides)), self.shape[last])
        })
    }

    /// The same elements with a shape and strides that reach a subset of them.
    ///
    /// # Safety
    /// Every element of the result must be an element of `self`.
    pub(crate) unsafe fn reshaped<const Q: usize>(
        self,
        start: [usize; R],
        shape: [usize; Q],
        strides: [isize; Q],
    ) -> View<'a, T, Q> {
        let ptr = self.ptr.wrapping_offset(offset(start, self.strides));
        View { ptr, shape, strides, memory: PhantomData }
    }
}

impl<'a, T: 'static, const R: usize> View<'a, T, R> {
    /// The view itself if `U` is `T`, for generic code that must call what is not generic.
    pub fn cast<U: 'static>(self) -> Option<View<'a, U, R>> {
        let View { ptr, shape, strides, .. } = self;
        // SAFETY: T and U are one type.
        same::<T, U>().then(|| unsafe { View::from_raw(ptr.cast(), shape, strides) })
    }
}

impl<'a, T: 'static, const R: usize> ViewMut<'a, T, R> {
    /// As [`View::cast`].
    pub fn cast<U: 'static>(self) -> Option<ViewMut<'a, U, R>> {
        let ViewMut { ptr, shape, strides, .. } = self;
        // SAFETY: T and U are one type.
        same::<T, U>().then(|| unsafe { ViewMut::from_raw(ptr.cast(), shape, strides) })
    }
}

impl<T: Copy, const R: usize> View<'_, T, R> {
    /// The element at `index`, or `None` outside the shape.
    pub fn get(&self, index: [usize; R]) -> Option<T> {
        // SAFETY: the index is inside the shape, whose elements are all readable.
        inside(index, self.shape).then(|| unsafe { *self.ptr.offset(offset(index, self.strides)) })
    }

    /// The element at `index`.
    ///
    /// # Panics
    /// Outside the shape, as slice indexing does.
    #[track_caller]
    pub fn at(&self, index: [usize; R]) -> T {
        self.get(index).unwrap_or_else(|| panic!("index {index:?} outside shape {:?}", self.shape))
    }
}

impl<'a, T, const R: usize> ViewMut<'a, T, R> {
    /// A contiguous row-major view of the start of `slice`.
    ///
    /// # Errors
    /// [`ViewError`] if the slice is too short or the shape overflows.
    #[inline(always)]
    pub fn new(slice: &'a mut [T], shape: [usize; R]) -> Result<Self, ViewError> {
        let strides = contiguous(slice.len(), shape)?;
        // SAFETY: as many elements follow one another from the start of `slice`, borrowed exclusively for 'a; rows without gaps are distinct.
        Ok(unsafe { Self::from_raw(slice.as_mut_ptr(), shape, strides) })
    }

    /// A view whose element `[i, j, ..]` is `slice[offset + i * strides[0] + j * strides[1] + ..]`.
    ///
    /// # Errors
    /// [`ViewError`] if an element would lie outside the slice, or two indices could name one element.
    pub fn strided(
        slice: &'a mut [T],
        offset: usize,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<Self, ViewError> {
        check_bounds(slice.len(), offset, shape, strides)?;
        check_overlap(shape, strides)?;
        let ptr = slice.as_mut_ptr().wrapping_add(offset);
        // SAFETY: the elements are distinct and lie in `slice`, borrowed exclusively for 'a.
        Ok(unsafe { Self::from_raw(ptr, shape, strides) })
    }

    /// # Safety
    /// The elements must be distinct, and valid for reads and writes by this view alone for `'a`.
    pub(crate) unsafe fn from_raw(ptr: *mut T, shape: [usize; R], strides: [isize; R]) -> Self {
        ViewMut { ptr, shape, strides, memory: PhantomData }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// The strides, in elements.
    pub fn strides(&self) -> [isize; R] {
        self.strides
    }

    /// Whether some axis has size zero.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Address of element `[0, .., 0]`; dangling if the view is empty.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.ptr
    }

    /// The same elements, read-only.
    pub fn as_ref(&self) -> View<'_, T, R> {
        // SAFETY: `self` is borrowed for as long as the result.
        unsafe { View::from_raw(self.ptr, self.shape, self.strides) }
    }

    /// The same view for a shorter time.
    pub fn rb_mut(&mut self) -> ViewMut<'_, T, R> {
        ViewMut { ptr: self.ptr, shape: self.shape, strides: self.strides, memory: PhantomData }
    }

    /// As [`View::reshaped`].
    ///
    /// # Safety
    /// Every element of the result must be an element of `self`, each once.
    pub(crate) unsafe fn reshaped<const Q: usize>(
        self,
        start: [usize; R],
        shape: [usize; Q],
        strides: [isize; Q],
    ) -> ViewMut<'a, T, Q> {
        let ptr = self.ptr.wrapping_offset(offset(start, self.strides));
        ViewMut { ptr, shape, strides, memory: PhantomData }
    }
}

impl<T: Copy, const R: usize> ViewMut<'_, T, R> {
    /// Writes `value` at `index`.
    ///
    /// # Panics
    /// Outside the shape, as slice indexing does.
    #[track_caller]
    pub fn set(&mut self, index: [usize; R], value: T) {
        assert!(inside(index, self.shape), "index {index:?} outside shape {:?}", self.shape);
        // SAFETY: the index is inside the shape, whose elements are all writable.
        unsafe { *self.ptr.offset(offset(index, self.strides)) = value }
    }
}
