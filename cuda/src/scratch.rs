//! Memory that operations reuse: what `MemStack` is on the CPU, on a device.

use crate::error::CudaError;
use crate::memory::Buffer;
use crate::pending::Statuses;
use crate::stream::Stream;
use crate::view::ViewMut;

/// Every piece starts at a multiple of this many bytes.
const ALIGNMENT: usize = 256;

/// Bytes of device memory that an operation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScratchReq(Option<usize>);

impl ScratchReq {
    /// None.
    pub const EMPTY: ScratchReq = ScratchReq(Some(0));

    /// More than there can be.
    pub const OVERFLOW: ScratchReq = ScratchReq(None);

    /// Room for `len` elements.
    pub fn new<T>(len: usize) -> ScratchReq {
        let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT));
        ScratchReq(bytes.filter(|&bytes| bytes <= isize::MAX as usize))
    }

    /// Both at once.
    #[must_use]
    pub fn and(self, other: ScratchReq) -> ScratchReq {
        let sum = self.0.zip(other.0).and_then(|(a, b)| a.checked_add(b));
        ScratchReq(sum.filter(|&bytes| bytes <= isize::MAX as usize))
    }

    /// One after the other.
    #[must_use]
    pub fn or(self, other: ScratchReq) -> ScratchReq {
        ScratchReq(self.0.zip(other.0).map(|(a, b)| a.max(b)))
    }

    /// Bytes, `usize::MAX` if they overflow.
    pub fn bytes(self) -> usize {
        self.0.unwrap_or(usize::MAX)
    }
}

/// Device memory for the operations of one stream, one after the other. Made once, it serves every operation whose requirement it holds:
/// then nothing is allocated any more.
#[derive(Debug)]
pub struct Scratch {
    stream: Stream,
    buffer: Buffer<u8>,
    pub(crate) statuses: Statuses,
}

impl Scratch {
    /// Memory for `req`.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn new(stream: &Stream, req: ScratchReq) -> Result<Scratch, CudaError> {
        let bytes = req.0.ok_or(CudaError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Scratch { stream: stream.clone(), buffer: Buffer::zeros(stream, bytes)?, statuses: Statuses::default() })
    }

    /// Bytes that it holds.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether work on `stream` that needs `req` can use it.
    ///
    /// # Errors
    /// [`CudaError::OtherStream`], [`CudaError::Scratch`].
    pub fn check(&self, stream: &Stream, req: ScratchReq) -> Result<(), CudaError> {
        if !self.stream.same_queue(stream) {
            return Err(CudaError::OtherStream);
        }
        let (needed, given) = (req.bytes(), self.len_bytes());
        if needed > given { Err(CudaError::Scratch { needed, given }) } else { Ok(()) }
    }

    /// All of it, to be cut into pieces.
    pub(crate) fn arena(&mut self) -> Arena<'_> {
        let ordinal = self.stream.device().ordinal();
        Arena { rest: self.buffer.len(), used: 0, ordinal, memory: &mut self.buffer }
    }
}

/// Pieces of a scratch, cut off one after the other.
pub(crate) struct Arena<'a> {
    memory: &'a mut Buffer<u8>,
    used: usize,
    rest: usize,
    ordinal: usize,
}

impl<'a> Arena<'a> {
    /// Room for `len` elements, holding anything.
    ///
    /// # Panics
    /// If there is less, for which the caller checks.
    pub(crate) fn take<T>(&mut self, len: usize) -> ViewMut<'a, T, 1> {
        let bytes = ScratchReq::new::<T>(len).bytes();
        assert!(bytes <= self.rest, "scratch: {bytes} bytes needed, {} left", self.rest);
        let pointer = self.memory.base() + self.used as u64;
        self.used += bytes;
        self.rest -= bytes;
        // Pieces do not overlap, and lie inside memory that is borrowed for as long as they live.
        ViewMut::on(pointer, self.ordinal, len, 0, [len], None).expect("one contiguous axis inside the scratch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_add_and_overflow() {
        let (a, b) = (ScratchReq::new::<f32>(3), ScratchReq::new::<f64>(100));
        assert_eq!((a.bytes(), b.bytes()), (256, 1024));
        assert_eq!(a.and(b).bytes(), 1280);
        assert_eq!(a.or(b).bytes(), 1024);
        assert_eq!(ScratchReq::new::<f64>(usize::MAX / 4), ScratchReq::OVERFLOW);
        assert_eq!(a.and(ScratchReq::OVERFLOW), ScratchReq::OVERFLOW);
        assert_eq!(ScratchReq::OVERFLOW.or(a), ScratchReq::OVERFLOW);
        assert_eq!(ScratchReq::EMPTY.and(a), a);
    }
}
