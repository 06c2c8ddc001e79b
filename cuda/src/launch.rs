//! A kernel's geometry and its launch.

use crate::device::Kernel;
use crate::error::CudaError;
use crate::stream::Stream;
use cudarc::driver::result::launch_kernel;
use std::ffi::c_void;

/// Blocks, threads of a block, and bytes of its shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 3],
    pub(crate) threads: u32,
    pub(crate) shared: u32,
}

/// Blocks along the second and third axis of a grid, at most; along the first 2^31 - 1.
pub(crate) const MOST_BLOCKS: u32 = 65_535;

impl Stream {
    /// Enqueues `kernel` with `params`, its one argument. A grid without blocks is no work.
    ///
    /// # Safety
    /// `P` has the layout of the kernel's parameter; what it points to is valid on this stream's device for what the kernel does, for this
    /// grid.
    pub(crate) unsafe fn launch<P: Copy>(&self, kernel: Kernel, grid: Grid, params: &P) -> Result<(), CudaError> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let error = || CudaError::launch(kernel.name);
        self.device().context().bind_to_thread().map_err(error())?;
        let function = self.device().function(kernel, grid.shared)?;
        let ([x, y, z], threads) = (grid.blocks, (grid.threads, 1, 1));
        let mut arguments = [core::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the caller's contract; the driver copies the parameter before it returns.
        let launched = unsafe {
            launch_kernel(function, (x, y, z), threads, grid.shared, self.cudarc().cu_stream(), &mut arguments)
        };
        launched.map_err(error())
    }
}
