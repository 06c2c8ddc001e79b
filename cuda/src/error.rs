//! What can go wrong on the way to a device, naming what and where.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use foof_kernels::ViewError;

/// An error of the driver, the compiler or the device's memory. After any of them but a failed launch or an illegal address, which CUDA makes
/// final for the process's context, the device can be used on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The driver's library is not installed.
    #[error("no CUDA driver: libcuda was not found. Install NVIDIA's driver, or run on the CPU")]
    NoDriver,
    /// There is no device of that number.
    #[error("no CUDA device {ordinal}: {count} found")]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// Devices that there are.
        count: usize,
    },
    /// The driver is older than the code needs.
    #[error("the driver supports CUDA {}.{}, {}.{} is needed: update the driver", found.0, found.1, needed.0, needed.1)]
    DriverTooOld {
        /// The version that the driver supports.
        found: (u32, u32),
        /// The version needed.
        needed: (u32, u32),
    },
    /// The device is older than the kernels.
    #[error("{name} has compute capability {}.{}, {}.{} is needed", found.0, found.1, needed.0, needed.1)]
    Architecture {
        /// The device's name.
        name: String,
        /// Its compute capability.
        found: (u32, u32),
        /// The least that will do.
        needed: (u32, u32),
    },
    /// NVRTC is not installed.
    #[error(
        "no CUDA compiler: libnvrtc was not found. Install the CUDA toolkit or the package nvidia-cuda-nvrtc, and let the loader find it (LD_LIBRARY_PATH)"
    )]
    NoCompiler,
    /// NVRTC is older than the kernels need.
    #[error("NVRTC is of CUDA {}.{}, {}.{} is needed", found.0, found.1, needed.0, needed.1)]
    CompilerTooOld {
        /// Its version.
        found: (u32, u32),
        /// The version needed.
        needed: (u32, u32),
    },
    /// A source that does not compile.
    #[error("{file} does not compile for {arch}: {log}")]
    Compile {
        /// The source.
        file: &'static str,
        /// The architecture.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// The device's memory is used up.
    #[error("out of device memory: {bytes} bytes asked for")]
    OutOfMemory {
        /// The allocation that failed.
        bytes: usize,
    },
    /// Memory of one device given to another, or memory that is no device's.
    #[error("{argument}: memory {}, the stream is of device {expected}", found.map_or("of no device".into(), |d| format!("of device {d}")))]
    OtherDevice {
        /// The argument.
        argument: &'static str,
        /// The device that it is of, if any.
        found: Option<usize>,
        /// The stream's.
        expected: usize,
    },
    /// An address where no element can begin.
    #[error("{argument}: address {pointer:#x} is not a multiple of {alignment}")]
    Misaligned {
        /// The argument.
        argument: &'static str,
        /// The address.
        pointer: u64,
        /// What it must be a multiple of.
        alignment: usize,
    },
    /// Scratch made for another stream: its memory is reused in the order of one stream only.
    #[error("scratch belongs to another stream")]
    OtherStream,
    /// Scratch memory smaller than the `*_scratch` twin asks for.
    #[error("scratch: {needed} bytes needed, {given} given")]
    Scratch {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// A size that a kernel cannot take.
    #[error("{what} = {value}: at most {most} on this device")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The largest possible.
        most: usize,
    },
    /// A kernel that could not be launched, or that failed while running.
    #[error("kernel {kernel}: {name}: {message}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// The driver's name of the error.
        name: String,
        /// Its description.
        message: String,
    },
    /// Another error of the driver.
    #[error("{call}: {name}: {message}")]
    Driver {
        /// What was being done.
        call: &'static str,
        /// The driver's name of the error.
        name: String,
        /// Its description.
        message: String,
    },
    /// A view that cannot be made.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl CudaError {
    /// The driver's error while doing `call`.
    pub(crate) fn driver(call: &'static str) -> impl FnOnce(DriverError) -> CudaError {
        move |error| {
            let (name, message) = describe(error);
            CudaError::Driver { call, name, message }
        }
    }

    /// The driver's error while allocating.
    pub(crate) fn allocation(bytes: usize) -> impl FnOnce(DriverError) -> CudaError {
        move |error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { bytes },
            _ => CudaError::driver("allocation")(error),
        }
    }

    /// The driver's error while launching or waiting for a kernel.
    pub(crate) fn launch(kernel: &'static str) -> impl FnOnce(DriverError) -> CudaError {
        move |error| {
            let (name, message) = describe(error);
            CudaError::Launch { kernel, name, message }
        }
    }
}

fn describe(error: DriverError) -> (String, String) {
    let text = |text: Result<&core::ffi::CStr, DriverError>| text.map(|t| t.to_string_lossy().into_owned());
    let name = text(error.error_name()).unwrap_or_else(|_| format!("{:?}", error.0));
    let message = text(error.error_string()).unwrap_or_else(|_| "unknown to the driver".into());
    (name, message)
}
