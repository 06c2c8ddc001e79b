//! From an argument to a launch: what can go wrong on the way, and that the way can be gone again afterwards.

use foof_cuda::compile::{self, Source, Target};
use foof_cuda::cudarc::driver::CudaContext;
use foof_cuda::cudarc::driver::result::memcpy_htod_async;
use foof_cuda::peak::{self, Effort, Unit};
use foof_cuda::{Arch, Buffer, Cache, CudaError, Device, Scratch, ScratchReq, Stream, View, ViewMut};
use foof_emulation as emulation;
use std::fs;
use std::path::PathBuf;

const OUT_OF_MEMORY: i32 = 2;
const LAUNCH_FAILED: i32 = 719;

/// A stream, or the end of the test where there is nothing to run it on.
macro_rules! stream {
    () => {
        match emulation::stream() {
            Some(stream) => stream,
            None => return,
        }
    };
}

/// A path that is this process's, also on another machine than the one that built it.
fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("foof-road-{}-{name}", std::process::id()))
}

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}

#[test]
fn memory_comes_back_as_it_went() {
    let stream = stream!();
    for len in [0, 1, 7, 1000] {
        let buffer = Buffer::from_host(&stream, &ramp(len)).expect("memory");
        assert_eq!(buffer.to_host(&stream).expect("copied"), ramp(len));
        let zeros = Buffer::<f64>::zeros(&stream, len).expect("memory");
        assert_eq!(zeros.to_host(&stream).expect("copied"), vec![0.0; len]);
    }
    let mut buffer = Buffer::from_host(&stream, &ramp(4)).expect("memory");
    let error = buffer.copy_from_host(&stream, &ramp(5)).expect_err("another length");
    assert!(matches!(error, CudaError::View(_)), "{error}");
}

#[test]
fn views_are_checked_as_on_the_cpu() {
    let stream = stream!();
    let mut buffer = Buffer::from_host(&stream, &ramp(24)).expect("memory");
    let view = buffer.strided(3, [2, 3], [10, -1]).expect("inside");
    assert_eq!((view.shape(), view.strides()), ([2, 3], [10, -1]));
    assert_eq!(view.pointer(), buffer.view([24]).expect("inside").pointer() + 12);
    assert!(matches!(buffer.view([5, 5]), Err(CudaError::View(_))));
    assert!(matches!(buffer.strided(1, [3], [-1]), Err(CudaError::View(_))));
    assert!(matches!(buffer.strided(0, [usize::MAX, 2], [1, 1]), Err(CudaError::View(_))));
    assert!(matches!(buffer.strided_mut(0, [2, 3], [1, 1]), Err(CudaError::View(_))));
    assert!(buffer.strided(0, [2, 3], [1, 1]).is_ok(), "views that are only read may overlap");
    assert!(buffer.view_mut([4, 6]).is_ok());
}

#[test]
fn memory_of_cudarc_is_borrowed_without_a_copy() {
    let stream = stream!();
    let mut theirs = stream.cudarc().alloc_zeros::<f32>(12).expect("memory");
    let view = View::from_cudarc(&theirs, [3, 4], [4, 1]).expect("inside");
    let address = view.pointer();
    assert!(matches!(View::from_cudarc(&theirs, [3, 5], [5, 1]), Err(CudaError::View(_))));
    assert_eq!(ViewMut::from_cudarc(&mut theirs, [12], [1]).expect("inside").pointer(), address);
    let part = theirs.slice(4..);
    let part = View::from_cudarc_view(&part, &stream, [2, 4], [4, 1]).expect("inside");
    assert_eq!(part.pointer(), address + 16);
}

#[test]
fn a_pointer_of_another_device_is_refused() {
    let stream = stream!();
    let device = stream.device();
    let buffer = Buffer::from_host(&stream, &ramp(8)).expect("memory");
    let pointer = buffer.view([8]).expect("inside").pointer();
    // SAFETY: never read.
    let raw = |device: &Device, pointer: u64| unsafe {
        View::<f32, 1>::from_raw("x", device, pointer, 8, [8], [1]).map(|view| view.pointer())
    };
    assert_eq!(raw(device, pointer), Ok(pointer));
    let expected = CudaError::Misaligned { argument: "x", pointer: pointer + 2, alignment: 4 };
    assert_eq!(raw(device, pointer + 2), Err(expected));
    let host = [0f32; 8];
    let expected = CudaError::OtherDevice { argument: "x", found: None, expected: 0 };
    assert_eq!(raw(device, host.as_ptr() as u64), Err(expected));
    if emulation::set_devices(2) {
        let other =
            Device::from_cudarc(CudaContext::new(1).expect("a second device"), Cache::Memory).expect("as the first");
        let expected = CudaError::OtherDevice { argument: "x", found: Some(0), expected: 1 };
        assert_eq!(raw(&other, pointer), Err(expected.clone()));
        assert!(expected.to_string().contains("device 0"), "{expected}");
        let there = Stream::new(&other).expect("a stream");
        assert_eq!(buffer.view([8]).expect("inside").check_device("x", &there), Err(expected));
        let stray = Stream::from_cudarc(&other, stream.cudarc().clone());
        assert!(matches!(stray, Err(CudaError::OtherDevice { argument: "stream", found: Some(0), expected: 1 })));
        emulation::set_devices(1);
    }
}

#[test]
fn devices_that_are_not_there_or_too_old_are_errors() {
    let _stream = stream!();
    if !emulation::is_emulated() {
        return;
    }
    emulation::set_devices(0);
    assert_eq!(Device::count(), Ok(0));
    assert_eq!(Device::new(0).err(), Some(CudaError::NoDevice { ordinal: 0, count: 0 }));
    emulation::set_devices(1);
    assert_eq!(Device::new(1).err(), Some(CudaError::NoDevice { ordinal: 1, count: 1 }));
    emulation::set_driver_version(11_080);
    let error = Device::new(0).expect_err("an old driver");
    assert_eq!(error, CudaError::DriverTooOld { found: (11, 8), needed: (12, 0) });
    emulation::set_driver_version(13_000);
    emulation::set_capability(75);
    let error = Device::new(0).expect_err("an old device");
    assert!(matches!(&error, CudaError::Architecture { found: (7, 5), needed: (8, 0), .. }), "{error}");
    assert!(error.to_string().contains("CPU emulation"), "{error}");
    emulation::set_capability(90);
    assert_eq!(Device::new(0).expect("one that will do").arch(), Arch::new(9, 0));
}

#[test]
fn a_driver_older_than_the_compiler_is_an_error() {
    let stream = stream!();
    if !emulation::is_emulated() {
        return;
    }
    // A device of its own: nothing is loaded yet.
    let context = stream.device().context().clone();
    let fresh = Stream::new(&Device::from_cudarc(context, Cache::Memory).expect("a device")).expect("a stream");
    emulation::set_driver_version(12_080);
    let error = peak::rate(&fresh, Unit::FmaF32, Effort::LEAST).expect_err("an old driver");
    assert_eq!(error, CudaError::DriverTooOld { found: (12, 8), needed: (13, 0) });
    emulation::set_driver_version(13_000);
    assert!(peak::rate(&fresh, Unit::FmaF32, Effort::LEAST).is_ok());
}

#[test]
fn a_compiler_that_is_too_old_is_an_error() {
    let stream = stream!();
    let context = stream.device().context().clone();
    let fresh = Stream::new(&Device::from_cudarc(context, Cache::Memory).expect("a device")).expect("a stream");
    if !emulation::set_compiler_version(11_080) {
        return;
    }
    let error = peak::rate(&fresh, Unit::FmaF32, Effort::LEAST).expect_err("an old compiler");
    assert_eq!(error, CudaError::CompilerTooOld { found: (11, 8), needed: (12, 0) });
    emulation::set_compiler_version(13_000);
    assert!(peak::rate(&fresh, Unit::FmaF32, Effort::LEAST).is_ok());
}

#[test]
fn out_of_memory_is_an_error_and_not_the_end() {
    let stream = stream!();
    let error = Buffer::<f64>::zeros(&stream, usize::MAX / 2).expect_err("more than there is");
    assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
    assert!(matches!(Scratch::new(&stream, ScratchReq::OVERFLOW), Err(CudaError::OutOfMemory { .. })));
    if emulation::is_emulated() {
        for call in ["cuMemAllocAsync", "cuMemAlloc"] {
            emulation::fail_next(call, OUT_OF_MEMORY);
        }
        assert_eq!(Buffer::<f64>::zeros(&stream, 3).err(), Some(CudaError::OutOfMemory { bytes: 24 }));
        emulation::reset();
    }
    let buffer = Buffer::from_host(&stream, &ramp(8)).expect("memory");
    assert_eq!(buffer.to_host(&stream).expect("copied"), ramp(8));
}

#[test]
fn a_failed_launch_names_the_kernel() {
    let stream = stream!();
    if !emulation::fail_next("cuLaunchKernel", LAUNCH_FAILED) {
        return;
    }
    let error = peak::rate(&stream, Unit::FmaF64, Effort::LEAST).expect_err("a failed launch");
    let CudaError::Launch { kernel, name, .. } = &error else { panic!("{error}") };
    assert_eq!((*kernel, name.as_str()), ("peak_fma_f64", "CUDA_ERROR_LAUNCH_FAILED"));
    assert!(peak::rate(&stream, Unit::FmaF64, Effort::LEAST).is_ok(), "the stand-in can be used again");
}

#[test]
fn scratch_is_of_one_stream_and_one_size() {
    let (stream, other) = (stream!(), stream!());
    let req = ScratchReq::new::<f32>(100);
    let scratch = Scratch::new(&stream, req).expect("memory");
    assert_eq!(scratch.check(&stream, req), Ok(()));
    assert_eq!(scratch.check(&other, req), Err(CudaError::OtherStream));
    let more = req.and(ScratchReq::new::<f32>(1));
    let expected = CudaError::Scratch { needed: more.bytes(), given: req.bytes() };
    assert_eq!(scratch.check(&stream, more), Err(expected));
}

/// Streams are in no order but the one that is asked for.
#[test]
fn a_stream_waits_for_another() {
    let (first, second) = (stream!(), stream!());
    let mut buffer = Buffer::from_host(&first, &ramp(4)).expect("memory");
    let lazy = emulation::set_lazy(1);
    let doubled: Vec<f32> = ramp(4).iter().map(|x| 2.0 * x).collect();
    // Pinned memory is read when the stream gets there.
    // SAFETY: written before it is read.
    let mut pinned = unsafe { first.device().context().alloc_pinned::<f32>(4) }.expect("memory");
    pinned.as_mut_slice().expect("pinned").copy_from_slice(&doubled);
    let pointer = buffer.view_mut([4]).expect("inside").pointer();
    // SAFETY: both have four elements, until the end of the test.
    unsafe {
        let from = pinned.as_slice().expect("pinned");
        memcpy_htod_async(pointer, from, first.cudarc().cu_stream()).expect("enqueued");
    }
    if lazy {
        assert_eq!(buffer.to_host(&second).expect("copied"), ramp(4), "not yet");
    }
    second.wait_for(&first).expect("enqueued");
    assert_eq!(buffer.to_host(&second).expect("copied"), doubled);
    emulation::set_lazy(0);
    first.synchronize().expect("done");
}

#[test]
fn every_limit_of_the_device_is_measured() {
    let stream = stream!();
    for unit in Unit::ALL {
        let rate = peak::rate(&stream, unit, Effort::LEAST).expect("measured");
        assert!(rate.is_finite() && rate > 0.0, "{unit:?}: {rate}");
    }
    let bandwidth = peak::bandwidth(&stream, Effort::LEAST).expect("measured");
    assert!(bandwidth.is_finite() && bandwidth > 0.0);
}

#[test]
fn a_source_that_does_not_compile_shows_the_compilers_log() {
    let _stream = stream!();
    let source = Source { file: "broken.cu", text: "#error this is meant to fail\n" };
    let error = compile::compile(&source, Target::Machine(Arch::new(8, 0)), &[]).expect_err("broken");
    let CudaError::Compile { file: "broken.cu", arch, log } = &error else { panic!("{error}") };
    assert_eq!(arch, "sm_80");
    assert!(log.contains("this is meant to fail"), "{log}");
    let zero = Source { file: "zero.cu", text: "a\0b" };
    assert!(matches!(compile::compile(&zero, Target::Machine(Arch::new(8, 0)), &[]), Err(CudaError::Compile { .. })));
}

#[test]
fn every_source_compiles_and_loads() {
    let stream = stream!();
    stream.device().load_all().unwrap_or_else(|error| panic!("{error}"));
    stream.device().load_all().expect("loaded");
}

#[test]
fn an_architecture_newer_than_the_compiler_is_left_to_the_driver() {
    let _stream = stream!();
    let Target::Virtual(arch) = compile::target(Arch::new(99, 0)).expect("a compiler") else {
        panic!("no compiler knows sm_990");
    };
    assert!(arch.number() < 990);
    assert_eq!(compile::target(Arch::new(1, 0)), Err(CudaError::NoCompiler));
}

#[test]
fn compiled_kernels_are_kept_on_disk() {
    let stream = stream!();
    let directory = temporary("cache");
    let run = || {
        let cache = Cache::Directory(directory.clone());
        let device = Device::from_cudarc(stream.device().context().clone(), cache).expect("a device");
        peak::rate(&Stream::new(&device).expect("a stream"), Unit::FmaF32, Effort::LEAST).expect("measured");
        let mut files: Vec<_> =
            fs::read_dir(&directory).expect("made").map(|file| file.expect("read").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    };
    let file = run();
    let (bytes, written) = (fs::read(&file).expect("written"), fs::metadata(&file).expect("there").modified().ok());
    assert_eq!(run(), file);
    assert_eq!(fs::metadata(&file).expect("there").modified().ok(), written, "found, not written again");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("damaged");
    assert_eq!(run(), file);
    assert_eq!(fs::read(&file).expect("written again"), bytes);
    fs::remove_dir_all(directory).expect("removed");
}

#[test]
fn a_cache_that_cannot_be_written_is_none() {
    let stream = stream!();
    let file = temporary("not-a-directory");
    fs::write(&file, "").expect("written");
    let cache = Cache::Directory(file.join("cache"));
    let device = Device::from_cudarc(stream.device().context().clone(), cache).expect("a device");
    assert!(peak::rate(&Stream::new(&device).expect("a stream"), Unit::FmaF32, Effort::LEAST).is_ok());
    fs::remove_file(file).expect("removed");
}
