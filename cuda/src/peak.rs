//! The device's own limits, which every rate is measured against, and the time that work takes.

use crate::compile::Source;
use crate::device::Kernel;
use crate::error::CudaError;
use crate::launch::Grid;
use crate::memory::Buffer;
use crate::stream::Stream;
use cudarc::driver::sys::{self, CUevent_flags};
use cudarc::driver::{CudaEvent, DriverError};

/// `peak.cu`.
pub(crate) static SOURCE: Source = Source { file: "peak.cu", text: include_str!("../kernels/peak.cu") };

/// `PeakParams` of `peak.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    out: u64,
    from: u64,
    len: i64,
    rounds: i32,
    reserved: i32,
}
const _: () = assert!(size_of::<Params>() == 32);

const CHAINS: usize = 8;
const THREADS: u32 = 256;
const RUNS: usize = 5;

/// How much a measurement does: enough to be told from a launch on a GPU, or hardly anything where only the path is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Blocks of a grid.
    pub blocks: u32,
    /// Rounds of a loop on registers.
    pub rounds: u32,
    /// Bytes copied.
    pub bytes: usize,
}

impl Effort {
    /// Milliseconds on a large GPU.
    pub const FULL: Effort = Effort { blocks: 4096, rounds: 4096, bytes: 1 << 30 };
    /// For tests.
    pub const LEAST: Effort = Effort { blocks: 2, rounds: 3, bytes: 1 << 12 };
}

/// A loop on registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Fused multiply-adds of f32.
    FmaF32,
    /// Fused multiply-adds of f64.
    FmaF64,
    /// Tensor cores on TF32.
    TensorTf32,
    /// Tensor cores on bf16.
    TensorBf16,
    /// Tensor cores on f64.
    TensorF64,
}

impl Unit {
    /// All of them.
    pub const ALL: [Unit; 5] = [Unit::FmaF32, Unit::FmaF64, Unit::TensorTf32, Unit::TensorBf16, Unit::TensorF64];

    /// Its kernel, and the multiply-adds of a thread in one step of one chain.
    fn kernel(self) -> (&'static str, f64) {
        match self {
            Unit::FmaF32 => ("peak_fma_f32", 1.0),
            Unit::FmaF64 => ("peak_fma_f64", 1.0),
            Unit::TensorTf32 => ("peak_tensor_tf32", (16 * 8 * 8) as f64 / 32.0),
            Unit::TensorBf16 => ("peak_tensor_bf16", (16 * 8 * 16) as f64 / 32.0),
            Unit::TensorF64 => ("peak_tensor_f64", (8 * 8 * 4) as f64 / 32.0),
        }
    }
}

/// Operations per second of a unit, two for each multiply-add: the best of several runs.
///
/// # Errors
/// [`CudaError`].
pub fn rate(stream: &Stream, unit: Unit, effort: Effort) -> Result<f64, CudaError> {
    let (name, each) = unit.kernel();
    let threads = effort.blocks as usize * THREADS as usize;
    let out = Buffer::<f64>::zeros(stream, threads)?;
    let rounds = i32::try_from(effort.rounds).unwrap_or(i32::MAX);
    let params = Params { out: out.base(), from: 0, len: 0, rounds, reserved: 0 };
    let seconds = best(stream, name, effort, params)?;
    Ok(2.0 * threads as f64 * CHAINS as f64 * f64::from(rounds) * each / seconds)
}

/// Bytes per second of a copy, counting those read and those written: the best of several runs.
///
/// # Errors
/// [`CudaError`].
pub fn bandwidth(stream: &Stream, effort: Effort) -> Result<f64, CudaError> {
    let len = effort.bytes / 16;
    let (out, from) = (Buffer::<u8>::zeros(stream, 16 * len)?, Buffer::<u8>::zeros(stream, 16 * len)?);
    let params = Params { out: out.base(), from: from.base(), len: len as i64, rounds: 0, reserved: 0 };
    let seconds = best(stream, "peak_copy", effort, params)?;
    Ok(32.0 * len as f64 / seconds)
}

fn best(stream: &Stream, name: &'static str, effort: Effort, params: Params) -> Result<f64, CudaError> {
    let grid = Grid { blocks: [effort.blocks, 1, 1], threads: THREADS, shared: 0 };
    let mut best = f64::INFINITY;
    for _ in 0..=RUNS {
        // SAFETY: Params is PeakParams; `out` has an element of up to 8 bytes for each thread, or `len` times 16 bytes as `from` has.
        let launch = || unsafe { stream.launch(Kernel { source: &SOURCE, name }, grid, &params) };
        best = best.min(seconds(stream, launch)?);
    }
    Ok(best)
}

/// Seconds on the device from before `work` to after it.
///
/// # Errors
/// `work`'s, [`CudaError`].
pub fn seconds<E: From<CudaError>>(stream: &Stream, work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let error = || CudaError::driver("timing");
    let record = || stream.cudarc().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(error());
    let start = record()?;
    work()?;
    let end = record()?;
    end.synchronize().map_err(error())?;
    // A resolution of half a microsecond: nothing takes less.
    Ok(f64::from(elapsed(&start, &end).map_err(error())?).max(5e-4) / 1e3)
}

/// Milliseconds from one event to another, both done. Not by cudarc, whose function is missing from drivers before CUDA 12.8, where it panics.
fn elapsed(start: &CudaEvent, end: &CudaEvent) -> Result<f32, DriverError> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut milliseconds = 0.0;
    // SAFETY: a function of every driver, with its signature; it writes one `float`.
    let result = unsafe {
        let found = sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0");
        let function = found.map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?;
        function(&raw mut milliseconds, start.cu_event(), end.cu_event())
    };
    result.result().map(|()| milliseconds)
}
