//! Bad arguments of the safe functions: a typed error, and the output as it was.

use crate::run::{upload, view};
use foof::covariance::FactorOptions;
use foof::cuda::covariance::{factor_scratch, input_factor, input_factor_alloc};
use foof::cuda::{Buffer as Memory, CudaError, Scratch, ScratchReq};
use foof::{Bias, Error, Sharing};
use foof_emulation as emulation;
use foof_oracle::layout::{Buffer, Layout};

macro_rules! stream {
    () => {
        match emulation::stream() {
            Some(stream) => stream,
            None => return,
        }
    };
}

#[test]
fn arguments_are_named_as_on_the_cpu() {
    let stream = stream!();
    let x = Buffer::<f32, 3>::embed(&[1.0; 24], [4, 2, 3], Layout::RowMajor);
    let from = upload(&stream, &x);
    let mut out = Memory::from_host(&stream, &[7.0f32; 16]).expect("memory");
    let options = FactorOptions::default();
    let mut refused = |size: usize, options: &FactorOptions| {
        let target = out.view_mut([size, size]).expect("inside the buffer");
        let error = input_factor_alloc(target, view(&from, &x), options, &stream).expect_err("refused");
        assert_eq!(out.to_host(&stream).expect("copied"), [7.0; 16], "as it was");
        error
    };
    let error = refused(3, &FactorOptions { bias: Bias::With, ..options });
    assert_eq!(error, Error::Shape { argument: "out", expected: vec![4, 4], got: vec![3, 3] });
    let error = refused(3, &FactorOptions { decay: 1.0, ..options });
    assert!(matches!(error, Error::Parameter { name: "decay", .. }), "{error}");
    let error = refused(3, &FactorOptions { decay: f64::NAN, ..options });
    assert!(matches!(error, Error::Parameter { name: "decay", .. }), "{error}");
    let error = refused(3, &FactorOptions { rows_per_datapoint: 3, ..options });
    assert!(matches!(error, Error::Parameter { name: "rows_per_datapoint", .. }), "{error}");
}

/// Steps of zero repeat a row as often as a shape says.
#[test]
fn more_rows_than_a_grid_has_blocks_for_are_refused() {
    let stream = stream!();
    let from = Memory::from_host(&stream, &[1.0f32; 3]).expect("memory");
    let mut out = Memory::from_host(&stream, &[7.0f32; 9]).expect("memory");
    let most = 65_535 << 30;
    for (shape, value) in [([1 << 46, 1, 3], 1 << 46), ([1 << 40, 1 << 20, 3], 1 << 60)] {
        let (target, x) = (out.view_mut([3, 3]).expect("inside"), from.strided(0, shape, [0, 0, 1]).expect("inside"));
        let mut scratch = Scratch::new(&stream, ScratchReq::EMPTY).expect("memory");
        let error = input_factor(target, x, &FactorOptions::default(), &stream, &mut scratch).expect_err("refused");
        assert_eq!(error, Error::Cuda(CudaError::TooLarge { what: "rows", value, most }));
    }
    assert_eq!(out.to_host(&stream).expect("copied"), [7.0; 9], "as it was");
}

#[test]
fn an_empty_batch_has_no_mean() {
    let stream = stream!();
    let from = Memory::<f32>::zeros(&stream, 0).expect("memory");
    let mut out = Memory::from_host(&stream, &[7.0f32; 9]).expect("memory");
    for shape in [[0, 1, 3], [2, 0, 3]] {
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            let options = FactorOptions { sharing, ..FactorOptions::default() };
            let (target, x) = (out.view_mut([3, 3]).expect("inside"), from.view(shape).expect("empty"));
            let error = input_factor_alloc(target, x, &options, &stream).expect_err("refused");
            assert_eq!(error, Error::EmptyBatch { argument: "inputs", shape: shape.to_vec() });
        }
    }
    assert_eq!(out.to_host(&stream).expect("copied"), [7.0; 9], "as it was");
}

#[test]
fn scratch_must_be_large_enough_and_of_the_stream() {
    let stream = stream!();
    let x = Buffer::<f32, 3>::embed(&vec![1.0; 600], [600, 1, 1], Layout::RowMajor);
    let from = upload(&stream, &x);
    let mut out = Memory::from_host(&stream, &[7.0f32]).expect("memory");
    let options = FactorOptions::default();
    let req = factor_scratch::<f32>(x.shape, &options);
    assert!(req.bytes() > 0, "the sum is split");
    let mut refused = |scratch: &mut Scratch| {
        let target = out.view_mut([1, 1]).expect("inside the buffer");
        let error = input_factor(target, view(&from, &x), &options, &stream, scratch).expect_err("refused");
        assert_eq!(out.to_host(&stream).expect("copied"), [7.0], "as it was");
        error
    };
    let mut small = Scratch::new(&stream, ScratchReq::new::<u8>(req.bytes() - 1 - 255)).expect("memory");
    let (needed, given) = (req.bytes(), small.len_bytes());
    assert_eq!(refused(&mut small), Error::Cuda(CudaError::Scratch { needed, given }));
    let other = emulation::stream().expect("another stream");
    let mut foreign = Scratch::new(&other, req).expect("memory");
    assert_eq!(refused(&mut foreign), Error::Cuda(CudaError::OtherStream));
}

/// Once scratch is made and kernels are loaded, calls allocate nothing.
#[test]
fn steady_state_allocates_nothing() {
    let stream = stream!();
    let x = Buffer::<f32, 3>::embed(&vec![1.0; 1800], [300, 2, 3], Layout::RowMajor);
    let from = upload(&stream, &x);
    let mut out = Memory::from_host(&stream, &[7.0f32; 9]).expect("memory");
    let options = FactorOptions { decay: 0.5, ..FactorOptions::default() };
    let mut scratch = Scratch::new(&stream, factor_scratch::<f32>(x.shape, &options)).expect("memory");
    let mut step = || {
        let target = out.view_mut([3, 3]).expect("inside the buffer");
        input_factor(target, view(&from, &x), &options, &stream, &mut scratch).expect("enqueued");
    };
    step();
    let before = emulation::allocations();
    step();
    assert_eq!(emulation::allocations(), before);
    stream.synchronize().expect("done");
}
