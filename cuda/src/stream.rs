//! Streams: where work is enqueued, and in which precision.

use crate::device::Device;
use crate::error::CudaError;
use cudarc::driver::{CudaStream, sys};
use std::sync::Arc;

/// How products of f32 are taken. Sums are f32 throughout; f64 is not touched by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Precision {
    /// f32: fused multiply-adds, or tensor cores on three products of the parts of each factor, which loses no more.
    #[default]
    Full,
    /// Factors rounded to 11 bits (TF32), one product on tensor cores.
    Tf32,
    /// Factors rounded to 8 bits (bf16), one product on tensor cores.
    Bf16,
}

/// Where work is enqueued: a device's stream, and the precision of products. What `Par` is on the CPU. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream {
    device: Device,
    stream: Arc<CudaStream>,
    precision: Precision,
}

impl Stream {
    /// A new stream.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn new(device: &Device) -> Result<Stream, CudaError> {
        let stream = device.context().new_stream().map_err(CudaError::driver("making a stream"))?;
        Ok(Stream { device: device.clone(), stream, precision: Precision::Full })
    }

    /// The device's default stream, PyTorch's unless one was chosen.
    pub fn legacy_default(device: &Device) -> Stream {
        Stream { device: device.clone(), stream: device.context().default_stream(), precision: Precision::Full }
    }

    /// A stream of cudarc, candle's for one.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`] if it is of another context.
    pub fn from_cudarc(device: &Device, stream: Arc<CudaStream>) -> Result<Stream, CudaError> {
        if stream.context() != device.context() {
            let (found, expected) = (Some(stream.context().ordinal()), device.ordinal());
            return Err(CudaError::OtherDevice { argument: "stream", found, expected });
        }
        Ok(Stream { device: device.clone(), stream, precision: Precision::Full })
    }

    /// A stream that another library made, by its handle.
    ///
    /// # Safety
    /// `handle` is a stream of the device's primary context and outlives the result, its clones, and what was made on them.
    pub unsafe fn from_raw(device: &Device, handle: sys::CUstream) -> Stream {
        // SAFETY: the caller's contract.
        let stream = unsafe { device.context().wrap_borrowed_stream(handle) };
        Stream { device: device.clone(), stream, precision: Precision::Full }
    }

    /// The same stream with another precision.
    pub fn with_precision(&self, precision: Precision) -> Stream {
        Stream { precision, ..self.clone() }
    }

    /// How products of f32 are taken.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The stream of cudarc.
    pub fn cudarc(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Waits until everything enqueued so far is done.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for what failed since the last wait.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(CudaError::driver("waiting for a stream"))
    }

    /// Lets what is enqueued here from now on begin only when everything enqueued on `other` so far is done: for memory that both use, or that the other one's
    /// buffers free. The host does not wait.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn wait_for(&self, other: &Stream) -> Result<(), CudaError> {
        self.stream.join(&other.stream).map_err(CudaError::driver("waiting for another stream"))
    }

    pub(crate) fn same_queue(&self, other: &Stream) -> bool {
        self.device == other.device && self.stream.cu_stream() == other.stream.cu_stream()
    }
}
