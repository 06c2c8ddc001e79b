//! Bad input to the safe functions: the typed error that names it, outputs as they were.

use foof::convolution::{
    Axis, Conv, FactorPlan, GeometryError, conv_error_factor, conv_error_factor_alloc, conv_forward,
    conv_forward_alloc, conv_input_factor, conv_input_factor_alloc, conv_input_factor_scratch, conv_input_gradient,
    conv_input_gradient_alloc, conv_weight_gradient, conv_weight_gradient_alloc,
};
use foof::covariance::{Centring, FactorOptions};
use foof::scaling::Scaling;
use foof::{
    Bias, Blend, Error, Isa, MatMut, MatRef, MemBuffer, MemStack, Par, Sharing, StackReq, Triangle, View, ViewMut,
};

fn par() -> Par {
    Par::seq()
}

/// 4 to 6 channels, 3 x 3 taps over 7 x 5 pixels, stride 2: 4 x 3 outputs.
fn conv() -> Conv {
    let axes = [7, 5].map(|size| Axis::new(size, 3).padding(1).stride(2));
    Conv::new(4, 6, axes).expect("a convolution")
}

const N: usize = 3;
const X: [usize; 4] = [N, 4, 7, 5];
const E: [usize; 4] = [N, 6, 4, 3];
const W: [usize; 2] = [6, 36];

/// Runs `f` on an output of a value that must still be there, and returns the error.
#[track_caller]
fn refused<const R: usize>(shape: [usize; R], f: impl FnOnce(ViewMut<'_, f64, R>) -> Result<(), Error>) -> Error {
    let mut out = vec![7.0; shape.iter().product()];
    let error = f(ViewMut::new(&mut out, shape).expect("a view")).expect_err("bad input");
    assert!(out.iter().all(|&v| v == 7.0), "{error}: the output was written");
    error
}

/// Calls `f` with no scratch at all.
fn without_scratch<R>(f: impl FnOnce(&mut MemStack) -> R) -> R {
    f(MemStack::new(&mut MemBuffer::new(StackReq::empty())))
}

fn view<const R: usize>(data: &[f64], shape: [usize; R]) -> View<'_, f64, R> {
    View::new(data, shape).expect("a view")
}

/// Enough ones for any of the tensors.
fn ones() -> Vec<f64> {
    vec![1.0; 4000]
}

#[track_caller]
fn assert_shape(error: Error, named: &str) {
    assert!(matches!(error, Error::Shape { argument, .. } if argument == named), "{error}, not about {named}");
}

#[track_caller]
fn assert_parameter(error: Error, named: &str) {
    assert!(matches!(error, Error::Parameter { name, .. } if name == named), "{error}, not about {named}");
}

#[track_caller]
fn assert_scratch(error: Error) {
    assert!(matches!(error, Error::Scratch { needed, given } if needed > given), "{error}");
}

#[track_caller]
fn assert_overflow(error: Error) {
    assert!(matches!(error, Error::Geometry(GeometryError::Overflow { .. })), "{error}, not an overflow");
}

#[test]
fn geometries() {
    let named = |result: Result<Conv, GeometryError>| result.expect_err("no convolution");
    let axis = Axis::new(5, 3);
    for (axis, parameter) in [
        (Axis { size: 0, ..axis }, "size"),
        (Axis { kernel: 0, ..axis }, "kernel"),
        (Axis { stride: 0, ..axis }, "stride"),
        (Axis { dilation: 0, ..axis }, "dilation"),
    ] {
        assert_eq!(named(Conv::new(1, 1, [Axis::new(5, 3), axis])), GeometryError::Zero { parameter, axis: Some(1) });
    }
    for (inputs, outputs, parameter) in [(0, 1, "in_channels"), (1, 0, "out_channels")] {
        assert_eq!(named(Conv::new(inputs, outputs, [axis])), GeometryError::Zero { parameter, axis: None });
    }
    assert_eq!(named(Conv::new(1, 1, [axis; 0])), GeometryError::Rank { axes: 0 });
    assert_eq!(named(Conv::new(1, 1, [axis; 4])), GeometryError::Rank { axes: 4 });
    let large = GeometryError::KernelTooLarge { axis: 0, reach: 5, padded: 4 };
    assert_eq!(named(Conv::new(1, 1, [Axis::new(4, 3).dilation(2)])), large);
    for (channels, parameter) in [([4, 6], "in_channels"), ([6, 4], "out_channels")] {
        let error = named(Conv::new(channels[0], channels[1], [axis]).and_then(|conv| conv.with_groups(3)));
        assert_eq!(error, GeometryError::Groups { parameter, channels: 4, groups: 3 });
    }
    let huge = usize::MAX / 2;
    for axis in [Axis::new(huge, 3).padding(huge), Axis::new(5, huge).dilation(huge), Axis::new(huge, 1)] {
        assert!(matches!(named(Conv::new(3, 1, [axis])), GeometryError::Overflow { .. }));
    }
    let error = Error::from(GeometryError::Groups { parameter: "in_channels", channels: 4, groups: 3 });
    assert_eq!(error.to_string(), "groups 3 does not divide in_channels 4");
}

#[test]
fn products() {
    let (data, conv, set) = (ones(), conv(), Blend::set(1.0));
    let (x, e, w) = (view(&data, X), view(&data, E), MatRef::new(&data, W).expect("a view"));
    let less = |shape: [usize; 4], axis: usize| {
        let mut shape = shape;
        shape[axis] -= 1;
        shape
    };
    for axis in 0..4 {
        let (small_x, small_e) = (view(&data, less(X, axis)), view(&data, less(E, axis)));
        // Another number of images is a fault of the second argument that has it.
        let (of_x, of_e) = if axis == 0 { ("out", "out") } else { ("x", "errors") };
        assert_shape(refused(E, |out| conv_forward_alloc(out, set, small_x, w, &conv, par())), of_x);
        assert_shape(refused(X, |out| conv_input_gradient_alloc(out, set, small_e, w, &conv, par())), of_e);
        let of_x = if axis == 0 { "errors" } else { "x" };
        assert_shape(refused(W, |out| conv_weight_gradient_alloc(out, set, e, small_x, &conv, par())), of_x);
        assert_shape(refused(W, |out| conv_weight_gradient_alloc(out, set, small_e, x, &conv, par())), "errors");
        assert_shape(refused(less(E, axis), |out| conv_forward_alloc(out, set, x, w, &conv, par())), "out");
        assert_shape(refused(less(X, axis), |out| conv_input_gradient_alloc(out, set, e, w, &conv, par())), "out");
    }
    for shape in [[5, 36], [6, 35], [6, 37]] {
        let w = MatRef::new(&data, shape).expect("a view");
        assert_shape(refused(E, |out| conv_forward_alloc(out, set, x, w, &conv, par())), "weights");
        assert_shape(refused(X, |out| conv_input_gradient_alloc(out, set, e, w, &conv, par())), "weights");
        assert_shape(refused(shape, |out| conv_weight_gradient_alloc(out, set, e, x, &conv, par())), "out");
    }
    // Other numbers of axes than the geometry's.
    let line = view(&data, [N, 4, 35]);
    assert_shape(refused([N, 6, 12], |out| conv_forward_alloc(out, set, line, w, &conv, par())), "x");
    let volume = view(&data, [N, 4, 1, 7, 5]);
    assert_shape(refused([N, 6, 1, 4, 3], |out| conv_forward_alloc(out, set, volume, w, &conv, par())), "x");
    let matrix = view(&data, [N, 4]);
    assert_shape(refused([N, 6], |out| conv_forward_alloc(out, set, matrix, w, &conv, par())), "x");

    assert_scratch(refused(E, |out| without_scratch(|stack| conv_forward(out, set, x, w, &conv, par(), stack))));
    let none = refused(X, |out| without_scratch(|stack| conv_input_gradient(out, set, e, w, &conv, par(), stack)));
    assert_scratch(none);
    let none = refused(W, |out| without_scratch(|stack| conv_weight_gradient(out, set, e, x, &conv, par(), stack)));
    assert_scratch(none);

    // One image, read over and over.
    let shape = |[_, c, h, w]: [usize; 4]| [usize::MAX / 4, c, h, w];
    let x = View::strided(&data, 0, shape(X), [0, 35, 5, 1]).expect("a view");
    let e = View::strided(&data, 0, shape(E), [0, 12, 3, 1]).expect("a view");
    assert_overflow(refused(W, |out| conv_weight_gradient_alloc(out, set, e, x, &conv, par())));
    assert_overflow(refused(E, |out| conv_forward_alloc(out, set, x, w, &conv, par())));
    assert_overflow(refused(X, |out| conv_input_gradient_alloc(out, set, e, w, &conv, par())));
}

#[test]
fn factors() {
    let (data, conv) = (ones(), conv());
    let (x, e, plan) = (view(&data, X), view(&data, E), FactorPlan::new::<f64>(&conv, par()));
    let options = FactorOptions::default();
    let (a, b) = ([1, 36, 36], [1, 6, 6]);
    let of_inputs = |x: View<'_, f64, 4>, options: FactorOptions| {
        refused(a, |out| conv_input_factor_alloc(out, x, &plan, &options, par()))
    };
    let of_errors = |e: View<'_, f64, 4>, options: FactorOptions| {
        refused(b, |out| conv_error_factor_alloc(out, e, &conv, &options, par()))
    };
    let both = |options| [of_inputs(x, options), of_errors(e, options)];

    for shape in [[2, 36, 36], [1, 35, 36], [1, 37, 37]] {
        assert_shape(refused(shape, |out| conv_input_factor_alloc(out, x, &plan, &options, par())), "out");
    }
    assert_shape(refused([1, 7, 6], |out| conv_error_factor_alloc(out, e, &conv, &options, par())), "out");
    assert_shape(of_inputs(e, options), "inputs");
    assert_shape(of_errors(x, options), "errors");
    for decay in [-0.1, 1.0, f64::NAN] {
        both(FactorOptions { decay, ..options }).into_iter().for_each(|error| assert_parameter(error, "decay"));
    }
    for scale in [0.0, f64::NAN, f64::INFINITY] {
        let scaling = Scaling::Custom(scale);
        both(FactorOptions { scaling, ..options }).into_iter().for_each(|error| assert_parameter(error, "scale"));
    }
    for rows_per_datapoint in [0, 2] {
        let error = |error| assert_parameter(error, "rows_per_datapoint");
        both(FactorOptions { rows_per_datapoint, ..options }).into_iter().for_each(error);
    }
    both(FactorOptions { centring: Centring::Centred, ..options })
        .into_iter()
        .for_each(|error| assert_parameter(error, "centring"));
    both(FactorOptions { bias: Bias::With, ..options }).into_iter().for_each(|error| assert_parameter(error, "bias"));

    let empty = |argument, shape: [usize; 4]| Error::EmptyBatch { argument, shape: shape.to_vec() };
    let (no_x, no_e) = ([0, 4, 7, 5], [0, 6, 4, 3]);
    assert_eq!(of_inputs(view(&data, no_x), options), empty("inputs", no_x));
    assert_eq!(of_errors(view(&data, no_e), options), empty("errors", no_e));

    for (k, bad) in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().enumerate() {
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            let options = FactorOptions { sharing, triangle: Triangle::Lower, ..options };
            let index = vec![k, 2, 3, 1];
            let mut data = ones();
            data[((k * 4 + 2) * 7 + 3) * 5 + 1] = bad;
            let not_finite = |argument| Error::NotFinite { argument, index: index.clone() };
            assert_eq!(of_inputs(view(&data, X), options), not_finite("inputs"));
            let mut data = ones();
            data[((k * 6 + 2) * 4 + 3) * 3 + 1] = bad;
            assert_eq!(of_errors(view(&data, E), options), not_finite("errors"));
        }
    }

    let none = refused(a, |out| without_scratch(|stack| conv_input_factor(out, x, &plan, &options, par(), stack)));
    assert_scratch(none);
    assert_scratch(refused(b, |out| without_scratch(|stack| conv_error_factor(out, e, &conv, &options, par(), stack))));

    let shape = |[_, c, h, w]: [usize; 4]| [usize::MAX / 4, c, h, w];
    assert_overflow(of_inputs(View::strided(&data, 0, shape(X), [0, 35, 5, 1]).expect("a view"), options));
    assert_overflow(of_errors(View::strided(&data, 0, shape(E), [0, 12, 3, 1]).expect("a view"), options));
    assert_eq!(conv_input_factor_scratch::<f64>(usize::MAX / 4, &plan, &options, par()), StackReq::OVERFLOW);
}

/// A plan in correlation form is made for a panel width; with another it is refused, not misread.
#[test]
fn plans_for_another_element_or_instruction_set_are_refused() {
    let axis = Axis::new(9, 3).padding(1);
    let conv = Conv::new(3, 2, [axis, axis]).expect("a convolution");
    let (data, options) = (ones(), FactorOptions::default());
    let x = view(&data, [2, 3, 9, 9]);
    for &isa in Isa::available() {
        let par = par().with_isa(isa);
        let plan = FactorPlan::correlation::<f32>(&conv, par);
        let error = refused([1, 27, 27], |out| conv_input_factor_alloc(out, x, &plan, &options, par));
        assert_parameter(error, "plan");
        for &other in Isa::available() {
            let plan = FactorPlan::correlation::<f64>(&conv, par);
            let on = par.with_isa(other);
            let mut out = vec![7.0; 27 * 27];
            let view = ViewMut::new(&mut out, [1, 27, 27]).expect("a view");
            match conv_input_factor_alloc(view, x, &plan, &options, on) {
                Ok(()) => assert!(plan.suits::<f64>(on), "{isa} {other}"),
                Err(error) => {
                    assert!(!plan.suits::<f64>(on) && out.iter().all(|&v| v == 7.0), "{isa} {other}");
                    assert_parameter(error, "plan");
                }
            }
        }
    }
}

#[test]
fn products_of_no_images_are_no_error() {
    let (data, conv) = (ones(), conv());
    let (x, e) = (view(&data, [0, 4, 7, 5]), view(&data, [0, 6, 4, 3]));
    let mut out = vec![7.0; 6 * 36];
    let half = Blend { alpha: 1.0, beta: 0.5 };
    let view = MatMut::new(&mut out, W).expect("a view");
    conv_weight_gradient_alloc(view, half, e, x, &conv, par()).expect("no images");
    assert!(out.iter().all(|&v| v == 3.5));
}
