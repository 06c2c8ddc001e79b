//! The safe function: its checks, its errors, its memory.

use crate::{definite, embed, matrix, stream};
use foof::cuda::inverse::{batched_damped_inverse, batched_damped_inverse_alloc, batched_damped_inverse_scratch};
use foof::cuda::{Buffer, CudaError, Scratch, ScratchReq, Stream};
use foof::inverse::Dampings;
use foof::{Error, Triangle};
use foof_cuda::inverse::Rung;
use foof_emulation as emulation;
use foof_oracle::layout::Layout;
use foof_oracle::{Dense, Random};

#[test]
fn bad_arguments_are_named_and_outputs_untouched() {
    let stream = stream!();
    let a = Buffer::from_host(&stream, &[1.0f32; 2 * 3 * 3]).expect("memory");
    let mut out = Buffer::from_host(&stream, &[7.0f32; 2 * 3 * 3]).expect("memory");
    let mut call = |out_shape: [usize; 3], a_shape: [usize; 3], scale, damping: Dampings<'_, f32>| {
        let (view, from) = (out.view_mut(out_shape).expect("fits"), a.view(a_shape).expect("fits"));
        let error = batched_damped_inverse_alloc(view, from, scale, damping, Triangle::Full, &stream).expect_err("bad");
        assert_eq!(out.to_host(&stream).expect("copied"), [7.0; 18], "untouched");
        error.to_string()
    };
    let same = Dampings::Same(1.0);
    assert_eq!(call([2, 3, 3], [2, 3, 2], 1.0, same), "a: expected shape [2, 3, 3], got [2, 3, 2]");
    assert_eq!(call([1, 3, 3], [2, 3, 3], 1.0, same), "out: expected shape [2, 3, 3], got [1, 3, 3]");
    assert_eq!(call([2, 3, 3], [2, 3, 3], -1.0, same), "scale = -1: expected a positive finite number");
    let expected = "expected a finite number, not negative";
    assert_eq!(call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Same(-0.5)), format!("damping = -0.5: {expected}"));
    assert_eq!(
        call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Each(&[1.0, f32::NAN])),
        format!("damping[1] = NaN: {expected}")
    );
    assert_eq!(call([2, 3, 3], [2, 3, 3], 1.0, Dampings::Each(&[1.0])), "damping: expected shape [2], got [1]");
}

#[test]
fn scratch_that_will_not_do_is_refused() {
    let stream = stream!();
    let a = Buffer::from_host(&stream, &[1.0f32; 3]).expect("memory");
    let mut out = Buffer::from_host(&stream, &[7.0f32; 3]).expect("memory");
    let mut call = |scratch: &mut Scratch| {
        let (view, from) = (out.view_mut([3, 1, 1]).expect("fits"), a.view([3, 1, 1]).expect("fits"));
        let same = Dampings::Same(1.0);
        batched_damped_inverse(view, from, 1.0, same, Triangle::Full, &stream, scratch).map(drop)
    };
    let needed = batched_damped_inverse_scratch::<f32>([3, 1]);
    let error = call(&mut Scratch::new(&stream, ScratchReq::EMPTY).expect("memory"));
    assert_eq!(error, Err(Error::Cuda(CudaError::Scratch { needed: needed.bytes(), given: 0 })));
    let other = Stream::new(stream.device()).expect("a stream");
    let error = call(&mut Scratch::new(&other, needed).expect("memory"));
    assert_eq!(error, Err(Error::Cuda(CudaError::OtherStream)));
    assert_eq!(call(&mut Scratch::new(&stream, needed).expect("memory")), Ok(()));
}

/// What shared memory cannot hold is refused, with the order that it can.
#[test]
fn matrices_too_large_for_a_block_are_refused() {
    let stream = stream!();
    let most = Rung::Block.largest::<f32>(stream.device().shared_memory());
    let n = most + 1;
    let a = Buffer::<f32>::zeros(&stream, n * n).expect("memory");
    let mut out = Buffer::<f32>::zeros(&stream, n * n).expect("memory");
    let (view, from) = (out.view_mut([1, n, n]).expect("fits"), a.view([1, n, n]).expect("fits"));
    let error = batched_damped_inverse_alloc(view, from, 1.0, Dampings::Same(1.0), Triangle::Full, &stream);
    assert_eq!(error, Err(Error::Cuda(CudaError::TooLarge { what: "n", value: n, most })));
}

/// Errors as on the CPU, of the same input.
#[test]
fn failures_are_the_cpus() {
    let stream = stream!();
    let mut random = Random::new(50);
    let n = 6;
    let mut a = definite::<f32>(&mut random, 9, n, 10.0);
    a[2] = Dense::identity(n).scaled(-1.0);
    a[5][(4, 3)] = f64::NAN;
    a[8][(5, 5)] = -100.0;
    let from = embed::<f32>(&a, [9, n, n], Layout::RowMajor);
    let mut on_cpu = from.clone();
    let each = [0.5; 9];
    let (damping, triangle) = (Dampings::Each(&each), Triangle::Full);
    let cpu = foof::inverse::batched_damped_inverse_alloc(
        on_cpu.view_mut(),
        from.view(),
        1.0,
        damping,
        triangle,
        foof::Par::seq(),
    );
    let source = Buffer::from_host(&stream, &from.data).expect("memory");
    let mut out = Buffer::from_host(&stream, &from.data).expect("memory");
    let (to, view) = (
        out.strided_mut(from.offset, from.shape, from.strides).expect("fits"),
        source.strided(from.offset, from.shape, from.strides).expect("fits"),
    );
    let gpu = batched_damped_inverse_alloc(to, view, 1.0, damping, triangle, &stream);
    let (Err(Error::Items { failures: gpu }), Err(Error::Items { failures: cpu })) = (gpu, cpu) else {
        panic!("both name what failed")
    };
    assert_eq!((gpu.len(), &gpu[..2]), (cpu.len(), &cpu[..2]));
    // A pivot's value is a rounded sum.
    let [(8, Error::NotPositiveDefinite { pivot: 5, value, .. })] = gpu[2..] else { panic!("{:?}", gpu[2]) };
    assert!(value < -90.0, "{value}");
}

/// Enqueued one after the other with one scratch, waited for in any order, each with its own outcome.
#[test]
fn calls_in_flight_keep_their_outcomes() {
    let stream = stream!();
    let lazy = emulation::set_lazy(1);
    let good = Buffer::from_host(&stream, &[4.0f32; 5]).expect("memory");
    let bad = Buffer::from_host(&stream, &[4.0f32, -2.0, 4.0]).expect("memory");
    let mut outs = [5, 3, 5].map(|len| Buffer::from_host(&stream, &vec![7.0f32; len]).expect("memory"));
    let mut scratch = Scratch::new(&stream, batched_damped_inverse_scratch::<f32>([5, 1])).expect("memory");
    let mut enqueue = |a: &Buffer<f32>, out: &mut Buffer<f32>, dampings: &[f32]| {
        let shape = [a.len(), 1, 1];
        let (to, from) = (out.view_mut(shape).expect("fits"), a.view(shape).expect("fits"));
        batched_damped_inverse(to, from, 1.0, Dampings::Each(dampings), Triangle::Full, &stream, &mut scratch)
            .expect("enqueued")
    };
    let [first, second, third] = &mut outs;
    let first = enqueue(&good, first, &[0.0, 0.0, 12.0, 0.0, 0.0]);
    let second = enqueue(&bad, second, &[0.0; 3]);
    let third = enqueue(&good, third, &[12.0; 5]);
    assert!(!lazy || !third.is_ready(), "nothing waits");
    assert_eq!(third.wait(), Ok(()));
    let failed = (1, Error::NotPositiveDefinite { layer: None, pivot: 0, value: -2.0 });
    assert_eq!(second.wait(), Err(Error::Items { failures: vec![failed] }));
    assert_eq!(first.wait(), Ok(()));
    emulation::set_lazy(0);
    let [first, second, third] = outs.map(|out| out.to_host(&stream).expect("copied"));
    assert_eq!(first, [0.25, 0.25, 0.0625, 0.25, 0.25]);
    assert_eq!(second, [0.25, 7.0, 0.25]);
    assert_eq!(third, [0.0625; 5]);
}

/// What the caller has back can be changed, pinned or not, and what a dropped outcome's work still reads is left alone.
#[test]
fn dampings_are_copied_before_the_call_returns() {
    let stream = stream!();
    let context = stream.device().context();
    // SAFETY: written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(1) }.expect("memory");
    let a = Buffer::from_host(&stream, &[4.0f32]).expect("memory");
    let mut outs = [7.0f32; 3].map(|value| Buffer::from_host(&stream, &[value]).expect("memory"));
    let mut scratch = Scratch::new(&stream, batched_damped_inverse_scratch::<f32>([1, 1])).expect("memory");
    emulation::set_lazy(1);
    for (out, damping) in outs.iter_mut().zip([0.0, 12.0, 60.0]) {
        pinned.as_mut_slice().expect("pinned")[0] = damping;
        let (to, from) = (out.view_mut([1, 1, 1]).expect("fits"), a.view([1, 1, 1]).expect("fits"));
        let dampings = Dampings::Each(pinned.as_slice().expect("pinned"));
        let pending = batched_damped_inverse(to, from, 1.0, dampings, Triangle::Full, &stream, &mut scratch);
        drop(pending.expect("enqueued"));
    }
    emulation::set_lazy(0);
    assert_eq!(outs.map(|out| out.to_host(&stream).expect("copied")[0]), [0.25, 0.0625, 0.015625]);
}

/// A kernel that fails while it runs is met by the wait, and whoever asks whether to wait is not kept asking.
#[test]
fn a_failure_while_running_is_met_by_the_wait() {
    const ILLEGAL_ADDRESS: i32 = 700;
    let stream = stream!();
    let a = Buffer::from_host(&stream, &[4.0f32]).expect("memory");
    let mut out = Buffer::from_host(&stream, &[7.0f32]).expect("memory");
    let mut scratch = Scratch::new(&stream, batched_damped_inverse_scratch::<f32>([1, 1])).expect("memory");
    let mut enqueue = || {
        let (to, from) = (out.view_mut([1, 1, 1]).expect("fits"), a.view([1, 1, 1]).expect("fits"));
        batched_damped_inverse(to, from, 1.0, Dampings::Same(0.0), Triangle::Full, &stream, &mut scratch)
    };
    let pending = enqueue().expect("enqueued");
    if !emulation::fail_next("cuEventQuery", ILLEGAL_ADDRESS) {
        return;
    }
    assert!(pending.is_ready());
    emulation::fail_next("cuEventSynchronize", ILLEGAL_ADDRESS);
    let error = pending.wait().expect_err("failed");
    let Error::Cuda(CudaError::Launch { kernel, name, .. }) = &error else { panic!("{error}") };
    assert_eq!((*kernel, name.as_str()), ("damped_inverse_registers16_f32", "CUDA_ERROR_ILLEGAL_ADDRESS"));
    assert_eq!(enqueue().expect("the stand-in can be used again").wait(), Ok(()));
}

/// In steady state nothing is allocated on the device.
#[test]
fn steady_state_allocates_nothing() {
    let stream = stream!();
    let mut random = Random::new(51);
    let a = embed::<f32>(&definite::<f32>(&mut random, 4, 5, 10.0), [4, 5, 5], Layout::RowMajor);
    let source = Buffer::from_host(&stream, &a.data).expect("memory");
    let mut out = Buffer::from_host(&stream, &a.data).expect("memory");
    let mut scratch = Scratch::new(&stream, batched_damped_inverse_scratch::<f32>([4, 5])).expect("memory");
    let mut step = || {
        let (to, from) = (
            out.strided_mut(a.offset, a.shape, a.strides).expect("fits"),
            source.strided(a.offset, a.shape, a.strides).expect("fits"),
        );
        let damping = Dampings::Each(&[0.5, 0.25, 1.0, 2.0]);
        let pending = batched_damped_inverse(to, from, 1.0, damping, Triangle::Full, &stream, &mut scratch);
        pending.expect("enqueued").wait().expect("definite");
    };
    step();
    let before = emulation::allocations();
    (0..3).for_each(|_| step());
    assert_eq!(emulation::allocations(), before);
    let mut back = a.clone();
    back.data = out.to_host(&stream).expect("copied");
    assert!(matrix(&back, 3).is_symmetric());
}
