//! `foof::cuda`'s functions: the CPU's factors, and bad input.

use foof::convolution::{Axis, Conv, conv_error_factor_alloc as error_factor_on_cpu};
use foof::covariance::{Centring, FactorOptions};
use foof::cuda::convolution::{self as cuda, FactorPlan};
use foof::cuda::{Buffer, CudaError, Scratch, ScratchReq, Stream};
use foof::{Bias, Error, Par, Sharing, Triangle};
use foof_emulation::stream;
use foof_oracle::Random;
use foof_oracle::compare::assert_same_bits;

const N: usize = 4;
const C: usize = 64;

/// 64 to 6 channels, 3 x 3 taps over 8 x 4 pixels: as many outputs.
fn conv() -> Conv {
    Conv::new(C, 6, [8, 4].map(|size| Axis::new(size, 3).padding(1))).expect("a convolution")
}

fn integers(len: usize) -> Vec<f32> {
    let mut random = Random::new(len as u64);
    (0..len).map(|_| random.integer(3) as f32).collect()
}

/// Both factors with every option that the CPU has, on powers of two of datapoints and outputs: the same bits.
#[test]
fn factors_are_the_cpus() {
    let Some(stream) = stream() else { return };
    for conv in [conv(), conv().with_bias(), conv().with_groups(2).expect("groups")] {
        for (sharing, triangle) in [(Sharing::Expand, Triangle::Full), (Sharing::Reduce, Triangle::Lower)] {
            let options =
                FactorOptions { sharing, triangle, decay: 0.5, bias: Bias::Without, ..FactorOptions::default() };
            let (x, size) = (integers(N * C * 32), conv.factor_size());
            let shape = [conv.groups(), size, size];
            let mut expected = vec![1.0f32; shape.iter().product()];
            let plan = foof::convolution::FactorPlan::new::<f32>(&conv, Par::seq());
            let view = foof::View::new(&x, [N, C, 8, 4]).expect("a view");
            let out = foof::ViewMut::new(&mut expected, shape).expect("a view");
            foof::convolution::conv_input_factor_alloc(out, view, &plan, &options, Par::seq()).expect("a factor");

            // For more images than there are.
            let plan = FactorPlan::new::<f32>(&conv, N + 3, &stream).expect("a plan");
            assert_eq!((plan.conv(), plan.images()), (&conv, N + 3));
            assert!(plan.to_string().contains("multiply-adds") && plan.multiply_adds() > 0, "{plan}");
            let x = Buffer::from_host(&stream, &x).expect("memory");
            let mut out = Buffer::from_host(&stream, &vec![1.0f32; expected.len()]).expect("memory");
            let view = x.view([N, C, 8, 4]).expect("a view");
            cuda::conv_input_factor_alloc(out.view_mut(shape).expect("a view"), view, &plan, &options, &stream)
                .expect("a factor");
            assert_same_bits(&out.to_host(&stream).expect("the factor"), &expected, &format!("{plan}, {options:?}"));

            let (errors, outputs) = (integers(N * 6 * 32), 6 / conv.groups());
            let shape = [conv.groups(), outputs, outputs];
            let mut expected = vec![1.0f32; shape.iter().product()];
            let view = foof::View::new(&errors, [N, 6, 8, 4]).expect("a view");
            let out = foof::ViewMut::new(&mut expected, shape).expect("a view");
            error_factor_on_cpu(out, view, &conv, &options, Par::seq()).expect("a factor");
            let e = Buffer::from_host(&stream, &errors).expect("memory");
            let mut out = Buffer::from_host(&stream, &vec![1.0f32; expected.len()]).expect("memory");
            let view = e.view([N, 6, 8, 4]).expect("a view");
            cuda::conv_error_factor_alloc(out.view_mut(shape).expect("a view"), view, &conv, &options, &stream)
                .expect("a factor");
            assert_same_bits(&out.to_host(&stream).expect("the factor"), &expected, &format!("errors, {options:?}"));
        }
    }
}

/// Runs an input factor that is refused, and returns the error; the output is as it was.
#[track_caller]
fn refused(
    stream: &Stream,
    out: [usize; 3],
    x: [usize; 4],
    plan: &FactorPlan,
    options: &FactorOptions,
    scratch: &mut Scratch,
) -> Error {
    let images = Buffer::from_host(stream, &vec![1.0f32; x.iter().product()]).expect("memory");
    let mut to = Buffer::from_host(stream, &vec![7.0f32; out.iter().product()]).expect("memory");
    let view = images.view(x).expect("a view");
    let error = cuda::conv_input_factor(to.view_mut(out).expect("a view"), view, plan, options, stream, scratch);
    let error = error.expect_err("bad input");
    assert!(to.to_host(stream).expect("the output").iter().all(|&v| v == 7.0), "{error}: the output was written");
    error
}

#[test]
fn bad_input_is_named() {
    let Some(stream) = stream() else { return };
    let (conv, good) = (conv(), FactorOptions::default());
    let plan = FactorPlan::new::<f32>(&conv, N, &stream).expect("a plan");
    assert!(plan.to_string().starts_with("correlation"), "{plan}");
    let req = cuda::conv_input_factor_scratch::<f32>(&plan, &good);
    let mut scratch = Scratch::new(&stream, req).expect("memory");
    let (out, x) = ([1, 576, 576], [N, C, 8, 4]);
    let shape = |error: Error, named: &str| {
        assert!(matches!(error, Error::Shape { argument, .. } if argument == named), "{error}, not about {named}");
    };
    let parameter = |error: Error, named: &str| {
        assert!(matches!(error, Error::Parameter { name, .. } if name == named), "{error}, not about {named}");
    };
    shape(refused(&stream, [1, 576, 575], x, &plan, &good, &mut scratch), "out");
    shape(refused(&stream, out, [N, C, 4, 8], &plan, &good, &mut scratch), "inputs");
    parameter(refused(&stream, out, [N + 1, C, 8, 4], &plan, &good, &mut scratch), "plan");
    for (options, named) in [
        (FactorOptions { decay: 1.0, ..good }, "decay"),
        (FactorOptions { centring: Centring::Centred, ..good }, "centring"),
        (FactorOptions { bias: Bias::With, ..good }, "bias"),
    ] {
        parameter(refused(&stream, out, x, &plan, &options, &mut scratch), named);
    }
    let other = FactorPlan::new::<f64>(&conv, N, &stream).expect("a plan");
    parameter(refused(&stream, out, x, &other, &good, &mut scratch), "plan");
    let empty = FactorPlan::new::<f32>(&conv, 0, &stream).expect("a plan");
    let error = refused(&stream, out, [0, C, 8, 4], &empty, &good, &mut scratch);
    assert!(matches!(error, Error::EmptyBatch { argument: "inputs", .. }), "{error}");
    let mut none = Scratch::new(&stream, ScratchReq::EMPTY).expect("memory");
    let error = refused(&stream, out, x, &plan, &good, &mut none);
    assert!(matches!(error, Error::Cuda(CudaError::Scratch { given: 0, needed }) if needed == req.bytes()), "{error}");
    let elsewhere = Stream::new(stream.device()).expect("a stream");
    let error = refused(&elsewhere, out, x, &plan, &good, &mut scratch);
    assert!(matches!(error, Error::Cuda(CudaError::OtherStream)), "{error}");

    let large = Conv::new(1, 1, [Axis::new(1 << 30, 1)]).expect("a convolution");
    let error = FactorPlan::new::<f32>(&large, 1, &stream).expect_err("too large");
    assert!(matches!(error, Error::Cuda(CudaError::TooLarge { .. })), "{error}");
}

/// In steady state nothing is allocated.
#[test]
fn nothing_is_allocated() {
    let Some(stream) = stream() else { return };
    let (conv, options) = (conv().with_bias(), FactorOptions::default());
    let plan = FactorPlan::new::<f32>(&conv, N, &stream).expect("a plan");
    let mut scratch = Scratch::new(&stream, cuda::conv_input_factor_scratch::<f32>(&plan, &options)).expect("memory");
    let x = Buffer::from_host(&stream, &integers(N * C * 32)).expect("memory");
    let mut out = Buffer::<f32>::zeros(&stream, 577 * 577).expect("memory");
    let before = foof_emulation::allocations();
    for _ in 0..2 {
        let (out, x) = (out.view_mut([1, 577, 577]).expect("a view"), x.view([N, C, 8, 4]).expect("a view"));
        cuda::conv_input_factor(out, x, &plan, &options, &stream, &mut scratch).expect("a factor");
    }
    stream.synchronize().expect("the factor");
    assert_eq!(foof_emulation::allocations(), before);
}
