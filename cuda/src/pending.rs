//! What only the device knows: which matrices of a batch failed. Enqueued with the work, waited for explicitly.

use crate::error::CudaError;
use crate::memory::Buffer;
use crate::stream::Stream;
use bytemuck::{Pod, Zeroable};
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

#[derive(Debug)]
struct Status {
    failures: Buffer<u32>,
    records: Buffer<Record>,
    /// The number of failures, copied when the work is done.
    host: PinnedHostSlice<u8>,
    done: CudaEvent,
}

impl Status {
    fn new(stream: &Stream, batch: usize) -> Result<Status, CudaError> {
        let context = stream.device().context();
        // SAFETY: written by `take` before anything reads it.
        let host =
            unsafe { context.alloc_pinned(size_of::<u32>()) }.map_err(CudaError::allocation(size_of::<u32>()))?;
        let done = context.new_event(None).map_err(CudaError::driver("making an event"))?;
        Ok(Status { failures: Buffer::zeros(stream, 1)?, records: Buffer::zeros(stream, batch)?, host, done })
    }
}

/// Statuses that were waited for and can be used again, and those that are pending.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Vec<Arc<Status>>);

impl Statuses {
    /// Enqueues work that reports on `batch` matrices. Allocates only if no status of that size is free.
    pub(crate) fn report(
        &mut self,
        stream: &Stream,
        kernel: &'static str,
        batch: usize,
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
        status.failures.clear(stream)?;
        enqueue(StatusPointers { failures: status.failures.base(), records: status.records.base() })?;
        status.failures.copy_to_pinned(stream, &mut status.host)?;
        status.done.record(stream.cudarc()).map_err(CudaError::driver("recording an event"))?;
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
    /// Whether [`wait`](Pending::wait) would return at once.
    pub fn is_ready(&self) -> bool {
        self.status.done.is_complete()
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
