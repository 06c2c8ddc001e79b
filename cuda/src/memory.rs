//! Memory that is owned.

use crate::error::CudaError;
use crate::stream::Stream;
use crate::view::{View, ViewMut};
use bytemuck::Pod;
use cudarc::driver::{CudaSlice, DevicePtr, PinnedHostSlice};
use std::marker::PhantomData;

/// `len` elements on a device. Alignment: 256 bytes.
///
/// They are freed in the order of the stream that they were made on. Before that, work that another stream does on them must be waited for:
/// [`Stream::wait_for`].
#[derive(Debug)]
pub struct Buffer<T> {
    bytes: CudaSlice<u8>,
    /// Asked for once: each time cudarc would record an event, while the order between streams is the caller's.
    pointer: u64,
    len: usize,
    element: PhantomData<T>,
}

fn bytes_of<T>(len: usize) -> Result<usize, CudaError> {
    len.checked_mul(size_of::<T>()).ok_or(CudaError::OutOfMemory { bytes: usize::MAX })
}

impl<T: Pod> Buffer<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn zeros(stream: &Stream, len: usize) -> Result<Buffer<T>, CudaError> {
        let size = bytes_of::<T>(len)?;
        let bytes = stream.cudarc().alloc_zeros(size.max(1)).map_err(CudaError::allocation(size))?;
        let pointer = bytes.device_ptr(stream.cudarc()).0;
        Ok(Buffer { bytes, pointer, len, element: PhantomData })
    }

    /// A copy of `from`, which can be changed once this returns.
    ///
    /// # Errors
    /// As [`Buffer::zeros`].
    pub fn from_host(stream: &Stream, from: &[T]) -> Result<Buffer<T>, CudaError> {
        let mut buffer = Buffer::zeros(stream, from.len())?;
        buffer.copy_from_host(stream, from)?;
        Ok(buffer)
    }

    /// Copies `from`, which has [`len`](Buffer::len) elements and can be changed once this returns.
    ///
    /// # Errors
    /// [`CudaError::View`] for another length, [`CudaError::Driver`].
    pub fn copy_from_host(&mut self, stream: &Stream, from: &[T]) -> Result<(), CudaError> {
        if from.len() != self.len {
            let reach = (0, from.len() as isize - 1);
            return Err(foof_kernels::ViewError::OutOfBounds { reach, len: self.len }.into());
        }
        if from.is_empty() {
            return Ok(());
        }
        let from = bytemuck::cast_slice::<T, u8>(from);
        let mut to = self.bytes.slice_mut(..from.len());
        stream.cudarc().memcpy_htod(from, &mut to).map_err(CudaError::driver("copying to the device"))?;
        stream.synchronize()
    }

    /// A copy, once everything enqueued before is done.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for what failed before.
    pub fn to_host(&self, stream: &Stream) -> Result<Vec<T>, CudaError> {
        let mut host = vec![T::zeroed(); self.len];
        if self.len > 0 {
            let to = bytemuck::cast_slice_mut::<T, u8>(&mut host);
            let from = self.bytes.slice(..to.len());
            stream.cudarc().memcpy_dtoh(&from, to).map_err(CudaError::driver("copying from the device"))?;
            stream.synchronize()?;
        }
        Ok(host)
    }

    /// Sets every byte to zero.
    pub(crate) fn clear(&mut self, stream: &Stream) -> Result<(), CudaError> {
        stream.cudarc().memset_zeros(&mut self.bytes).map_err(CudaError::driver("clearing memory"))
    }
}

impl Buffer<u32> {
    /// Copies to memory of the host that later work on the stream leaves alone; done when the stream gets there.
    pub(crate) fn copy_to_pinned(&self, stream: &Stream, to: &mut PinnedHostSlice<u8>) -> Result<(), CudaError> {
        let from = self.bytes.slice(..self.len * size_of::<u32>());
        stream.cudarc().memcpy_dtoh(&from, to).map_err(CudaError::driver("copying from the device"))
    }
}

impl<T> Buffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Row-major, from the first element on.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn view<const R: usize>(&self, shape: [usize; R]) -> Result<View<'_, T, R>, CudaError> {
        View::on(self.pointer, self.bytes.ordinal(), self.len, 0, shape, None)
    }

    /// Row-major, from the first element on.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn view_mut<const R: usize>(&mut self, shape: [usize; R]) -> Result<ViewMut<'_, T, R>, CudaError> {
        ViewMut::on(self.pointer, self.bytes.ordinal(), self.len, 0, shape, None)
    }

    /// With element `[0, .., 0]` at `offset`, and any strides in elements.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn strided<const R: usize>(
        &self,
        offset: usize,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<View<'_, T, R>, CudaError> {
        View::on(self.pointer, self.bytes.ordinal(), self.len, offset, shape, Some(strides))
    }

    /// With element `[0, .., 0]` at `offset`, and strides that let no two indices share an element.
    ///
    /// # Errors
    /// [`CudaError::View`].
    pub fn strided_mut<const R: usize>(
        &mut self,
        offset: usize,
        shape: [usize; R],
        strides: [isize; R],
    ) -> Result<ViewMut<'_, T, R>, CudaError> {
        ViewMut::on(self.pointer, self.bytes.ordinal(), self.len, offset, shape, Some(strides))
    }

    /// The address of the first element.
    pub(crate) fn base(&self) -> u64 {
        self.pointer
    }
}
