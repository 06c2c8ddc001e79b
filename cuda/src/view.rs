//! Views: a shape and strides over device memory that someone owns: a [`Buffer`](crate::Buffer), candle, PyTorch.

use crate::device::Device;
use crate::error::CudaError;
use crate::stream::Stream;
use cudarc::driver::{CudaSlice, CudaView, CudaViewMut, DevicePtr, DevicePtrMut};
use foof_kernels::ViewError;
use foof_kernels::view::{check_bounds, check_overlap, image_axes, pixel_axes, row_major};
use std::marker::PhantomData;

/// A tensor on a device: `R` axes with any strides, in elements.
#[derive(Debug)]
pub struct View<'a, T, const R: usize> {
    pointer: u64,
    ordinal: usize,
    shape: [usize; R],
    strides: [isize; R],
    memory: PhantomData<&'a [T]>,
}

/// A tensor on a device that can be written: no two indices share an element.
#[derive(Debug)]
pub struct ViewMut<'a, T, const R: usize> {
    view: View<'a, T, R>,
    memory: PhantomData<&'a mut [T]>,
}

/// A matrix on a device.
pub type MatRef<'a, T> = View<'a, T, 2>;

/// A matrix on a device that can be written.
pub type MatMut<'a, T> = ViewMut<'a, T, 2>;

// Not derived: that would ask the elements to be `Copy`.
impl<T, const R: usize> Clone for View<'_, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const R: usize> Copy for View<'_, T, R> {}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// `len` elements at `pointer`, element `[0, .., 0]` at `offset`; row-major if no strides are given.
    pub(crate) fn on(
        pointer: u64,
        ordinal: usize,
        len: usize,
        offset: usize,
        shape: [usize; R],
        strides: Option<[isize; R]>,
    ) -> Result<View<'a, T, R>, CudaError> {
        let strides = strides.map_or_else(|| row_major(shape), Ok)?;
        check_bounds(len, offset, shape, strides)?;
        // An empty view may start anywhere.
        let bytes = offset.checked_mul(size_of::<T>()).ok_or(ViewError::Overflow)?;
        let pointer = pointer.checked_add(bytes as u64).ok_or(ViewError::Overflow)?;
        Ok(View { pointer, ordinal, shape, strides, memory: PhantomData })
    }

    /// Memory of cudarc (and so of candle).
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn from_cudarc(from: &'a CudaSlice<T>, shape: [usize; R], strides: [isize; R]) -> Result<Self, CudaError> {
        let (pointer, order) = from.device_ptr(from.stream());
        drop(order);
        View::on(pointer, from.ordinal(), from.len(), 0, shape, Some(strides))
    }

    /// A part of memory of cudarc, on the stream that will use it.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn from_cudarc_view(
        from: &CudaView<'a, T>,
        stream: &Stream,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<Self, CudaError> {
        let (pointer, order) = from.device_ptr(stream.cudarc());
        drop(order);
        View::on(pointer, stream.device().ordinal(), from.len(), 0, shape, Some(strides))
    }

    /// `len` elements at `pointer`, which any library may have allocated, on `device`.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`] if the driver knows the memory as another device's or as none's, [`CudaError::Misaligned`] if no element can begin there,
    /// [`CudaError::View`].
    ///
    /// # Safety
    /// The elements are valid for reads for `'a`, also by work that is enqueued meanwhile and runs later.
    pub unsafe fn from_raw(
        argument: &'static str,
        device: &Device,
        pointer: u64,
        len: usize,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<Self, CudaError> {
        let view = View::on(pointer, device.ordinal(), len, 0, shape, Some(strides))?;
        if !pointer.is_multiple_of(align_of::<T>() as u64) {
            return Err(CudaError::Misaligned { argument, pointer, alignment: align_of::<T>() });
        }
        if len > 0 {
            let found = device.owner_of(pointer)?;
            if found != Some(device.ordinal()) {
                return Err(CudaError::OtherDevice { argument, found, expected: device.ordinal() });
            }
        }
        Ok(view)
    }

    /// Sizes.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// Elements from one index of an axis to the next.
    pub fn strides(&self) -> [isize; R] {
        self.strides
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The address of element `[0, .., 0]`.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    /// The number of the device that holds it.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Whether it is on the stream's device, or an error that names the argument.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`].
    pub fn check_device(&self, argument: &'static str, stream: &Stream) -> Result<(), CudaError> {
        let (found, expected) = (self.ordinal, stream.device().ordinal());
        match found == expected {
            true => Ok(()),
            false => Err(CudaError::OtherDevice { argument, found: Some(found), expected }),
        }
    }

    /// The same memory with other axes, which reach no element that these do not.
    pub(crate) fn with_axes<const Q: usize>(&self, shape: [usize; Q], strides: [isize; Q]) -> View<'a, T, Q> {
        View { pointer: self.pointer, ordinal: self.ordinal, shape, strides, memory: PhantomData }
    }
}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// Images `[N, C, X]`, `[N, C, Y, X]` or `[N, C, Z, Y, X]` with axes of size one in front of their spatial axes,
    /// `[N, C, Z, Y, X]`; `None` for another rank.
    pub fn as_images(&self) -> Option<View<'a, T, 5>> {
        image_axes(self.shape, self.strides).map(|(shape, strides)| self.with_axes(shape, strides))
    }

    /// The same tensor with its last axis moved to the second place: images `[N, .., C]` of a channels-last framework as `[N, C, ..]`. The
    /// identity below rank 3.
    pub fn channels_last(&self) -> View<'a, T, R> {
        let mut view = *self;
        if R > 2 {
            view.shape[1..].rotate_right(1);
            view.strides[1..].rotate_right(1);
        }
        view
    }

    /// Part `index` of `parts` equal parts of an axis.
    pub(crate) fn part(&self, axis: usize, index: usize, parts: usize) -> View<'a, T, R> {
        let mut view = *self;
        view.shape[axis] /= parts;
        let step = self.strides[axis] * (index * view.shape[axis]) as isize * size_of::<T>() as isize;
        view.pointer = self.pointer.wrapping_add_signed(step as i64);
        view
    }
}

impl<'a, T> View<'a, T, 5> {
    /// `[N, Z Y X, C]`, one pixel a row, where the spatial axes follow on one another.
    pub(crate) fn pixels(&self) -> Option<View<'a, T, 3>> {
        pixel_axes(self.shape, self.strides).map(|(shape, strides)| self.with_axes(shape, strides))
    }
}

impl<'a, T> ViewMut<'a, T, 3> {
    /// The matrix of the last two axes at `index` of the first, for a shorter time.
    ///
    /// # Panics
    /// If the index is outside the shape.
    pub fn matrix(&mut self, index: usize) -> MatMut<'_, T> {
        let ([n, rows, columns], [_, row, column]) = (self.shape(), self.strides());
        assert!(index < n, "matrix {index} of {n}");
        let view = self.view.part(0, index, n).with_axes([rows, columns], [row, column]);
        ViewMut { view, memory: PhantomData }
    }
}

impl<'a, T, const R: usize> ViewMut<'a, T, R> {
    pub(crate) fn on(
        pointer: u64,
        ordinal: usize,
        len: usize,
        offset: usize,
        shape: [usize; R],
        strides: Option<[isize; R]>,
    ) -> Result<ViewMut<'a, T, R>, CudaError> {
        let view = View::on(pointer, ordinal, len, offset, shape, strides)?;
        check_overlap(shape, view.strides)?;
        Ok(ViewMut { view, memory: PhantomData })
    }

    /// Memory of cudarc (and so of candle).
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn from_cudarc(from: &'a mut CudaSlice<T>, shape: [usize; R], strides: [isize; R]) -> Result<Self, CudaError> {
        let (ordinal, len, stream) = (from.ordinal(), from.len(), from.stream().clone());
        let (pointer, order) = from.device_ptr_mut(&stream);
        drop(order);
        ViewMut::on(pointer, ordinal, len, 0, shape, Some(strides))
    }

    /// A part of memory of cudarc, on the stream that will use it.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn from_cudarc_view(
        from: &'a mut CudaViewMut<'_, T>,
        stream: &Stream,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<Self, CudaError> {
        let len = from.len();
        let (pointer, order) = from.device_ptr_mut(stream.cudarc());
        drop(order);
        ViewMut::on(pointer, stream.device().ordinal(), len, 0, shape, Some(strides))
    }

    /// As [`View::from_raw`].
    ///
    /// # Errors
    /// As [`View::from_raw`].
    ///
    /// # Safety
    /// The elements are valid for reads and writes for `'a`, also by work that is enqueued meanwhile and runs later, and nothing else uses them
    /// unless it is ordered after that work.
    pub unsafe fn from_raw(
        argument: &'static str,
        device: &Device,
        pointer: u64,
        len: usize,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<Self, CudaError> {
        // SAFETY: the caller's contract.
        let view = unsafe { View::from_raw(argument, device, pointer, len, shape, strides) }?;
        check_overlap(shape, strides)?;
        Ok(ViewMut { view, memory: PhantomData })
    }

    /// The same, to be read.
    pub fn as_view(&self) -> View<'_, T, R> {
        self.view
    }

    /// The same for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T, R> {
        ViewMut { view: self.view, memory: PhantomData }
    }

    /// Sizes.
    pub fn shape(&self) -> [usize; R] {
        self.view.shape
    }

    /// Elements from one index of an axis to the next.
    pub fn strides(&self) -> [isize; R] {
        self.view.strides
    }

    /// The address of element `[0, .., 0]`.
    pub fn pointer(&self) -> u64 {
        self.view.pointer
    }
}
