//! What only the device knows: which matrices of a batch failed. Enqueued with the work, waited for explicitly.

use crate::error::CudaError;
use crate::memory::Buffer;
use crate::stream::Stream;
use bytemuck::{Pod, Zeroable};
use cudarc::driver::result::memcpy_htod_async;
use cudarc::driver::{CudaEvent, PinnedHostSlice};
use std::sync::Arc;

/// What a kernel says about one matrix. The `.cu` files have the same: `struct Record`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
pub struct Record {
    /// The pivot's value.
    pub value: f64,
    /// 0 if the matrix was inverted, else the failing pivot's row plus 1.
    pub pivot: i32,
    /// Row of the first entry that is NaN or infinite, or -1.
    pub row: i32,
    /// Its column, or -1.
    pub column: i32,
    /// Keeps records 8-byte multiples.
    pub reserved: i32,
}

/// Where a kernel writes: the number of failures (`unsigned int`, added to atomically), and a record for each matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusPointers {
    pub(crate) failures: u64,
    pub(crate) records: u64,
}

/// Bytes of the host that the work reads, and the device's memory that they go to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload<'a> {
    pub(crate) from: &'a [u8],
    pub(crate) to: u64,
}

#[derive(Debug)]
struct Status {
    failures: Buffer<u32>,
    records: Buffer<Record>,
    /// The number of failures, copied when the work is done.
    host: PinnedHostSlice<u8>,
    /// A copy of what is uploaded. From memory that is not pinned the driver may wait for the stream before it copies; from a caller's that is, it copies
    /// after the caller has it back.
    staged: Option<PinnedHostSlice<u8>>,
    done: CudaEvent,
}

impl Status {
    fn new(stream: &Stream, batch: usize) -> Result<Status, CudaError> {
        let host = pinned(stream, size_of::<u32>())?;
        let done = stream.device().context().new_event(None).map_err(CudaError::driver("making an event"))?;
        let (failures, records) = (Buffer::zeros(stream, 1)?, Buffer::zeros(stream, batch)?);
        Ok(Status { failures, records, host, staged: None, done })
    }

    fn upload(&mut self, stream: &Stream, Upload { from, to }: Upload<'_>) -> Result<(), CudaError> {
        let error = || CudaError::driver("copying to the device");
        // Work whose outcome was dropped may still read what was staged for it.
        self.done.synchronize().map_err(error())?;
        let staged = match self.staged.take() {
            Some(enough) if enough.len() >= from.len() => enough,
            _ => pinned(stream, from.len())?,
        };
        let staged = self.staged.insert(staged);
        staged.as_mut_slice().map_err(error())?[..from.len()].copy_from_slice(from);
        let staged = &staged.as_slice().map_err(error())?[..from.len()];
        // SAFETY: the caller's memory has as many bytes; what is staged stays as it is until `done`.
        unsafe { memcpy_htod_async(to, staged, stream.cudarc().cu_stream()) }.map_err(error())
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // Pinned memory is not freed in the order of a stream. Nothing can be done about an error.
        let _ = self.done.synchronize();
    }
}

fn pinned(stream: &Stream, bytes: usize) -> Result<PinnedHostSlice<u8>, CudaError> {
    // SAFETY: `host` is read after the device has written it, `staged` after the host has.
    unsafe { stream.device().context().alloc_pinned(bytes) }.map_err(CudaError::allocation(bytes))
}

/// Statuses that were waited for and can be used again, and those that are pending.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Vec<Arc<Status>>);

impl Statuses {
    /// Enqueues an upload and work that reports on `batch` matrices. Allocates only if no status of that size is free.
    pub(crate) fn report(
        &mut self,
        stream: &Stream,
        kernel: &'static str,
        batch: usize,
        upload: Option<Upload<'_>>,
        enqueue: impl FnOnce(StatusPointers) -> Result<(), CudaError>,
    ) -> Result<Pending, CudaError> {
        let free = |status: &mut Arc<Status>| Arc::get_mut(status).is_some_and(|status| status.records.len() >= batch);
        let found = self.0.iter_mut().position(free);
        let place = match found {
            Some(place) => place,
            None => {
                self.0.push(Arc::new(Status::new(stream, batch.max(1))?));
                self.0.len() - 1
            }
        };
        let shared = &mut self.0[place];
        let Some(status) = Arc::get_mut(shared) else { unreachable!("free or new") };
        let pointers = StatusPointers { failures: status.failures.base(), records: status.records.base() };
        let enqueued = upload
            .map_or(Ok(()), |upload| status.upload(stream, upload))
            .and_then(|()| status.failures.clear(stream))
            .and_then(|()| enqueue(pointers))
            .and_then(|()| status.failures.copy_to_pinned(stream, &mut status.host));
        // Also of what was enqueued before a failure.
        let recorded = status.done.record(stream.cudarc()).map_err(CudaError::driver("recording an event"));
        enqueued.and(recorded)?;
        Ok(Pending { status: shared.clone(), stream: stream.clone(), kernel, batch })
    }
}

/// Work whose outcome is not known yet.
#[must_use = "a matrix that failed is named by `wait` only"]
#[derive(Debug)]
pub struct Pending {
    status: Arc<Status>,
    stream: Stream,
    kernel: &'static str,
    batch: usize,
}

impl Pending {
    /// Whether [`wait`](Pending::wait) would return at once, be it with an error.
    pub fn is_ready(&self) -> bool {
        self.status.done.try_is_complete() != Ok(false)
    }

    /// Waits for the work, and returns the records of the matrices that failed, by their places in the batch, in ascending order.
    ///
    /// # Errors
    /// [`CudaError::Launch`] if the kernel could not run to its end, [`CudaError::Driver`].
    pub fn wait(self) -> Result<Vec<(usize, Record)>, CudaError> {
        self.status.done.synchronize().map_err(CudaError::launch(self.kernel))?;
        let failures = self.status.host.as_slice().map_err(CudaError::launch(self.kernel))?;
        if failures.iter().all(|&byte| byte == 0) {
            return Ok(Vec::new());
        }
        let records = self.status.records.to_host(&self.stream)?;
        Ok(records.into_iter().take(self.batch).enumerate().filter(|(_, record)| record.pivot != 0).collect())
    }
}
