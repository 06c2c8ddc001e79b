//! A machine with a driver and without NVRTC. One test: the loader looks for a library once in a process.

use foof_cuda::cudarc::nvrtc;
use foof_cuda::peak::{self, Effort, Unit};
use foof_cuda::{Buffer, CudaError, Stream};
use foof_emulation as emulation;

#[test]
fn a_missing_compiler_is_an_error_and_the_device_can_be_used_on() {
    let Some(device) = emulation::device_without_compiler() else { return };
    // SAFETY: only opens the library.
    if unsafe { nvrtc::sys::is_culib_present() } {
        return; // This machine has one of its own.
    }
    let stream = Stream::new(&device).expect("a stream");
    assert_eq!(peak::rate(&stream, Unit::FmaF32, Effort::LEAST), Err(CudaError::NoCompiler));
    assert_eq!(device.load_all(), Err(CudaError::NoCompiler));
    let buffer = Buffer::from_host(&stream, &[1.0f32, 2.0]).expect("memory");
    assert_eq!(buffer.to_host(&stream).expect("copied"), [1.0, 2.0]);
}
