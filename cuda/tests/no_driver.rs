//! A machine without CUDA: nothing here opens the stand-in driver.

use foof_cuda::cudarc::{driver, nvrtc};
use foof_cuda::{CudaError, Device, compile};

#[test]
fn a_missing_driver_is_an_error() {
    // SAFETY: only opens the library.
    let present = unsafe { driver::sys::is_culib_present() };
    match (present, Device::count()) {
        (false, count) => {
            assert_eq!(count, Err(CudaError::NoDriver));
            let error = Device::new(0).expect_err("no driver");
            assert_eq!(error, CudaError::NoDriver);
            assert!(error.to_string().contains("libcuda"), "{error}");
        }
        (true, Ok(count)) => {
            let expected = CudaError::NoDevice { ordinal: count, count };
            assert_eq!(Device::new(count).expect_err("one too many"), expected);
        }
        (true, Err(error)) => assert!(matches!(error, CudaError::Driver { .. }), "{error}"),
    }
}

#[test]
fn a_missing_compiler_is_an_error() {
    // SAFETY: only opens the library.
    let present = unsafe { nvrtc::sys::is_culib_present() };
    let version = compile::version();
    if present {
        assert!(version.expect("a version").0 >= 12);
    } else {
        assert_eq!(version, Err(CudaError::NoCompiler));
        assert!(CudaError::NoCompiler.to_string().contains("libnvrtc"));
    }
}
