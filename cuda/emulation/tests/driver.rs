//! The stand-in driver keeps CUDA's promises and no others: what is not waited for has not happened, and what is wrong is refused.

use foof_cuda::cudarc::driver::sys::{self, CUresult};
use foof_cuda::cudarc::nvrtc::{result as nvrtc, sys::nvrtcResult};
use foof_emulation as emulation;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

/// A stream's handle on the stand-in, or the end of the test.
macro_rules! handle {
    ($stream:ident) => {
        let Some($stream) = emulation::stream().filter(|_| emulation::is_emulated()) else { return };
        $stream.cudarc().context().bind_to_thread().expect("a context");
        let $stream = $stream.cudarc().clone();
    };
}

#[test]
fn lazy_work_waits_to_be_waited_for() {
    handle!(stream);
    let raw = stream.cu_stream();
    let device = stream.clone_htod(&[1f32, 2.0, 3.0]).expect("memory");
    let mut host = [0f32; 3];
    let pointer = { foof_cuda::cudarc::driver::DevicePtr::device_ptr(&device, &stream).0 };
    assert!(emulation::set_lazy(1));
    // SAFETY: both ranges live to the end of the test, and the copy ends before.
    unsafe {
        assert_eq!(sys::cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), pointer, 12, raw), CUresult::CUDA_SUCCESS);
        assert_eq!(host, [0.0; 3], "not yet");
        let mut event = null_mut();
        assert_eq!(sys::cuEventCreate(&raw mut event, 2), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventRecord(event, raw), CUresult::CUDA_SUCCESS);
        // Another stream that waits for the event takes this one along.
        let mut other = null_mut();
        assert_eq!(sys::cuStreamCreate(&raw mut other, 1), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuStreamWaitEvent(other, event, 0), CUresult::CUDA_SUCCESS);
        assert_eq!(host, [0.0; 3], "the wait is queued itself");
        assert_eq!(sys::cuStreamSynchronize(other), CUresult::CUDA_SUCCESS);
        assert_eq!(host, [1.0, 2.0, 3.0]);
        assert_eq!(sys::cuEventQuery(event), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventDestroy_v2(event), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuStreamDestroy_v2(other), CUresult::CUDA_SUCCESS);
    }
    // Asking again and again gets there too.
    host = [0.0; 3];
    // SAFETY: as above.
    unsafe {
        assert_eq!(sys::cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), pointer, 12, raw), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuStreamQuery(raw), CUresult::CUDA_ERROR_NOT_READY);
        while sys::cuStreamQuery(raw) == CUresult::CUDA_ERROR_NOT_READY {}
    }
    assert_eq!(host, [1.0, 2.0, 3.0]);
    emulation::reset();
}

#[test]
fn ranges_that_leave_their_allocation_are_refused() {
    handle!(stream);
    let raw = stream.cu_stream();
    let host = [0u8; 64];
    let mut pointer = 0;
    // SAFETY: each call that is not refused is in range.
    unsafe {
        assert_eq!(sys::cuMemAlloc_v2(&raw mut pointer, 0), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemAlloc_v2(&raw mut pointer, 1 << 40), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(sys::cuMemAlloc_v2(&raw mut pointer, 50), CUresult::CUDA_SUCCESS);
        let copy = |to, bytes| sys::cuMemcpyHtoDAsync_v2(to, host.as_ptr().cast(), bytes, raw);
        assert_eq!(copy(pointer, 50), CUresult::CUDA_SUCCESS);
        assert_eq!(copy(pointer, 51), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(copy(pointer + 49, 1), CUresult::CUDA_SUCCESS);
        assert_eq!(copy(pointer + 49, 2), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(copy(pointer - 1, 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(copy(host.as_ptr() as u64, 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemsetD8Async(pointer + 1, 0, 50, raw), CUresult::CUDA_ERROR_INVALID_VALUE);

        let mut ordinal = -1i32;
        let which = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        let mut ask = |pointer| sys::cuPointerGetAttribute((&raw mut ordinal).cast::<c_void>(), which, pointer);
        assert_eq!(ask(pointer + 49), CUresult::CUDA_SUCCESS);
        assert_eq!(ask(pointer + 50), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(ask(host.as_ptr() as u64), CUresult::CUDA_ERROR_INVALID_VALUE);

        assert_eq!(sys::cuMemFree_v2(pointer + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemFree_v2(pointer), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFree_v2(pointer), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(copy(pointer, 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(ask(pointer), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(ordinal, 0);
    }
}

/// Compiles `source` with `options`: the image, or the error and the log.
fn compile(source: &str, options: &[&str]) -> Result<Vec<i8>, (nvrtcResult, String)> {
    let source = CString::new(source).expect("no zero byte");
    let program = nvrtc::create_program(&source, Some(c"peak.cu")).expect("a program");
    // SAFETY: the program lives until it is destroyed, here.
    unsafe {
        let compiled = nvrtc::compile_program(program, options);
        let log = nvrtc::get_program_log(program).expect("a log");
        let log = String::from_utf8_lossy(&log.iter().map(|&c| c as u8).collect::<Vec<_>>()).into_owned();
        let image = compiled.and_then(|()| nvrtc::get_ptx(program)).map_err(|error| (error.0, log));
        nvrtc::destroy_program(program).expect("destroyed");
        image
    }
}

#[test]
fn the_compiler_wants_what_it_is_owed() {
    if emulation::device().is_none() || !emulation::is_emulated() {
        return;
    }
    let good = ["--gpu-architecture=sm_80", "--fmad=true"];
    assert!(compile("", &good).is_ok());
    for (options, said) in [
        (&["--fmad=true"][..], "no --gpu-architecture"),
        (&["--gpu-architecture=sm_81", "--fmad=true"], "sm_81"),
        (&["--gpu-architecture=sm_80"], "fmad"),
        (&["--gpu-architecture=sm_80", "--fmad=true", "--use_fast_math"], "fast math"),
        (&["--gpu-architecture=sm_80", "--fmad=true", "--prec-div=false"], "prec-div"),
    ] {
        let (code, log) = compile("", options).expect_err(said);
        assert_eq!(code, nvrtcResult::NVRTC_ERROR_INVALID_OPTION);
        assert!(log.contains(said), "{log}");
    }
    for (source, said) in
        [("int x;\n  # error no", "peak.cu(2): error: #error no"), ("#include \"absent.cuh\"", "absent.cuh")]
    {
        let (code, log) = compile(source, &good).expect_err(said);
        assert_eq!(code, nvrtcResult::NVRTC_ERROR_COMPILATION);
        assert!(log.contains(said), "{log}");
    }
}

#[test]
fn modules_hold_the_kernels_of_their_file() {
    handle!(stream);
    let _ = stream;
    let image = compile("", &["--gpu-architecture=sm_90", "--fmad=true"]).expect("an image");
    let (mut module, mut function) = (null_mut(), null_mut());
    // SAFETY: images end in a zero byte; handles are used while they live, or refused.
    unsafe {
        assert_eq!(
            sys::cuModuleLoadData(&raw mut module, c"garbage".as_ptr().cast()),
            CUresult::CUDA_ERROR_INVALID_IMAGE
        );
        assert_eq!(sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()), CUresult::CUDA_SUCCESS);
        let mut get = |name: &std::ffi::CStr| sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr());
        assert_eq!(get(c"no_such_kernel"), CUresult::CUDA_ERROR_NOT_FOUND);
        assert_eq!(get(c"peak_fma_f32"), CUresult::CUDA_SUCCESS);

        let launch = |function, grid, block, shared| {
            sys::cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, null_mut(), null_mut(), null_mut())
        };
        for (grid, block, shared) in [(0, 32, 0), (1, 0, 0), (1, 1025, 0), (1, 257, 0), (1, 32, 48 * 1024 + 1)] {
            let code = launch(function, grid, block, shared);
            assert_eq!(code, CUresult::CUDA_ERROR_INVALID_VALUE, "grid {grid}, block {block}, shared {shared}");
        }
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert_eq!(sys::cuFuncSetAttribute(function, most, 227 * 1024 + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuFuncSetAttribute(function, most, 227 * 1024), CUresult::CUDA_SUCCESS);

        assert_eq!(sys::cuModuleUnload(module), CUresult::CUDA_SUCCESS);
        assert_eq!(launch(function, 1, 32, 0), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(sys::cuModuleUnload(module), CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
    // A binary of a newer device, and of another major version.
    for architecture in ["sm_100", "sm_80", "compute_100"] {
        let option = format!("--gpu-architecture={architecture}");
        let image = image_of(architecture, &option);
        // SAFETY: as above.
        let code = unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) };
        assert_eq!(code, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, "{architecture}");
    }
}

/// The image that belongs to an architecture: a binary of a real one.
fn image_of(architecture: &str, option: &str) -> Vec<i8> {
    if architecture.starts_with("compute_") {
        return compile("", &[option, "--fmad=true"]).expect("an image");
    }
    let program = nvrtc::create_program(c"", Some(c"peak.cu")).expect("a program");
    // SAFETY: the program lives until it is destroyed, and the buffer has the size that was asked for.
    unsafe {
        nvrtc::compile_program(program, &[option, "--fmad=true"]).expect("compiled");
        let mut bytes = 0;
        let sys_nvrtc = foof_cuda::cudarc::nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut bytes);
        assert_eq!(sys_nvrtc, nvrtcResult::NVRTC_SUCCESS);
        let mut image = vec![0i8; bytes];
        let got = foof_cuda::cudarc::nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr());
        assert_eq!(got, nvrtcResult::NVRTC_SUCCESS);
        nvrtc::destroy_program(program).expect("destroyed");
        image
    }
}
