//! Bad input: the typed error that names it, outputs and state as they were.

use foof::covariance::{Centring, FactorOptions, error_factor, error_factor_alloc, input_factor, input_factor_alloc};
use foof::inverse::{self, Side, damped_cholesky, damped_inverse, damped_inverse_alloc};
use foof::kronecker::{Eigenbasis, Factor, Gradient, exact_step, foof_step, kfac_step};
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, Foof, FoofOptions, FoofScale, Kfac, KfacOptions, Observation, Optimizer, Preconditioner,
    Schedule, StepOptions,
};
use foof::product::{product, product_alloc};
use foof::scaling::Scaling;
use foof::{Blend, Error, MatMut, MatRef, MemBuffer, MemStack, Par, Sharing, StackReq, Triangle, View, damping, eigen};

fn par() -> Par {
    Par::seq()
}

fn matrix(data: &[f64], shape: [usize; 2]) -> MatRef<'_, f64> {
    MatRef::new(data, shape).expect("a view")
}

/// Runs `f` on an output of a value that must still be there, and returns the error.
#[track_caller]
fn refused(shape: [usize; 2], f: impl FnOnce(MatMut<'_, f64>) -> Result<(), Error>) -> Error {
    let mut out = vec![7.0; shape[0] * shape[1]];
    let error = f(MatMut::new(&mut out, shape).expect("a view")).expect_err("bad input");
    assert!(out.iter().all(|&v| v == 7.0), "{error}: the output was written");
    error
}

/// Calls `f` with no scratch at all.
fn without_scratch<R>(f: impl FnOnce(&mut MemStack) -> R) -> R {
    f(MemStack::new(&mut MemBuffer::new(StackReq::empty())))
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

/// Large enough that every operation needs scratch.
const N: usize = 100;

#[test]
fn products() {
    let data = vec![1.0; N * N];
    let square = matrix(&data, [N, N]);
    let (narrow, set) = (matrix(&data, [N - 1, N]), Blend::set(1.0));
    assert_shape(refused([N, N], |out| product_alloc(out, set, square, narrow, par())), "rhs");
    assert_shape(refused([N, N - 1], |out| product_alloc(out, set, square, square, par())), "out");
    assert_scratch(refused([N, N], |out| without_scratch(|stack| product(out, set, square, square, par(), stack))));
}

#[test]
fn factors() {
    let data = vec![1.0; 60];
    let x = View::new(&data, [4, 3, 5]).expect("a view");
    let options = FactorOptions::default();
    assert_shape(refused([5, 4], |out| input_factor_alloc(out, x, &options, par())), "out");
    for decay in [-0.1, 1.0, 2.0, f64::NAN] {
        let options = FactorOptions { decay, ..options };
        assert_parameter(refused([5, 5], |out| input_factor_alloc(out, x, &options, par())), "decay");
    }
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = FactorOptions { scaling: Scaling::Custom(scale), ..options };
        assert_parameter(refused([5, 5], |out| error_factor_alloc(out, x, &options, par())), "scale");
    }
    for rows_per_datapoint in [0, 3] {
        let options = FactorOptions { rows_per_datapoint, ..options };
        let error = refused([5, 5], |out| error_factor_alloc(out, x, &options, par()));
        assert_parameter(error, "rows_per_datapoint");
    }
    for shape in [[0, 3, 5], [4, 0, 5]] {
        let x = View::new(&data, shape).expect("a view");
        let error = refused([5, 5], |out| input_factor_alloc(out, x, &options, par()));
        assert_eq!(error, Error::EmptyBatch { argument: "inputs", shape: shape.to_vec() });
    }
    for (k, bad) in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().enumerate() {
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            for centring in [Centring::Raw, Centring::Centred] {
                let mut data = data.clone();
                data[15 * k + 5 + 2] = bad;
                let x = View::new(&data, [4, 3, 5]).expect("a view");
                let options = FactorOptions { sharing, centring, ..options };
                let index = vec![k, 1, 2];
                let error = refused([5, 5], |out| input_factor_alloc(out, x, &options, par()));
                assert_eq!(error, Error::NotFinite { argument: "inputs", index: index.clone() });
                let error = refused([5, 5], |out| error_factor_alloc(out, x, &options, par()));
                assert_eq!(error, Error::NotFinite { argument: "errors", index });
            }
        }
    }
    let data = vec![1.0; N * N];
    let x = View::new(&data, [N, 1, N]).expect("a view");
    let none = refused([N, N], |out| without_scratch(|stack| input_factor(out, x, &options, par(), stack)));
    assert_scratch(none);
    assert_scratch(refused([N, N], |out| without_scratch(|stack| error_factor(out, x, &options, par(), stack))));
}

/// The damped inverse of `a`, to be called with its output.
fn invert(a: MatRef<'_, f64>, scale: f64, damping: f64) -> impl FnOnce(MatMut<'_, f64>) -> Result<(), Error> {
    move |out| damped_inverse_alloc(out, a, scale, damping, Triangle::Full, par())
}

#[test]
fn inverses_and_solves() {
    let mut data = vec![0.0; N * N];
    data.iter_mut().step_by(N + 1).for_each(|v| *v = 4.0);
    let a = matrix(&data, [N, N]);
    assert_shape(refused([N, N], invert(matrix(&data, [N, N - 1]), 1.0, 1.0)), "a");
    assert_shape(refused([N - 1, N], invert(a, 1.0, 1.0)), "out");
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], invert(a, 1.0, bad)), "damping");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], invert(a, bad, 1.0)), "scale");
    }
    let scarce =
        |stack: &mut MemStack, out: MatMut<'_, f64>| damped_inverse(out, a, 1.0, 1.0, Triangle::Full, par(), stack);
    assert_scratch(refused([N, N], |out| without_scratch(|stack| scarce(stack, out))));
    assert_scratch(refused([N, N], |out| without_scratch(|stack| damped_cholesky(out, a, 1.0, 1.0, par(), stack))));
    assert_scratch(refused([N, N], |out| without_scratch(|stack| inverse::solve(a, out, Side::Left, par(), stack))));
    assert_shape(refused([N - 1, 3], |out| inverse::solve_alloc(a, out, Side::Left, par())), "b");
    assert_shape(refused([3, N - 1], |out| inverse::solve_alloc(a, out, Side::Right, par())), "b");
    // Zero damping is allowed, of a definite matrix; an indefinite one names its pivot.
    let mut out = vec![0.0; N * N];
    invert(a, 1.0, 0.0)(MatMut::new(&mut out, [N, N]).expect("a view")).expect("definite");
    for (bad, index) in [(-4.0, 41), (0.0, 99), (f64::NAN, 0), (f64::INFINITY, 64)] {
        let mut data = data.clone();
        data[index * (N + 1)] = bad;
        let error = invert(matrix(&data, [N, N]), 1.0, 0.0)(MatMut::new(&mut out, [N, N]).expect("a view"));
        let Err(Error::NotPositiveDefinite { layer: None, pivot, value }) = error else { panic!("{error:?}") };
        assert!(pivot == index && (value == bad || value.is_nan() && bad.is_nan()), "{pivot}: {value}, not {bad}");
    }
}

#[test]
fn preconditioned_products() {
    let data = vec![1.0; N * N];
    let view = |shape| matrix(&data, shape);
    let (set, shape) = (Blend::set(1.0), [6, 9]);
    let (p, q) = (Factor::Inverse(view([9, 9])), Factor::Cholesky(view([6, 6])));
    let gradient = Gradient::Matrix(view(shape));
    let low_rank = |inputs, errors| Gradient::LowRank { inputs: view(inputs), errors: view(errors), scale: 1.0 };
    let mut memory = MemBuffer::new(StackReq::new::<f64>(1 << 20));
    let mut kfac =
        |gradient, p, q| refused(shape, |out| kfac_step(out, set, gradient, p, q, par(), MemStack::new(&mut memory)));
    assert_shape(kfac(gradient, Factor::Inverse(view([9, 8])), q), "input factor");
    assert_shape(kfac(gradient, p, Factor::Cholesky(view([5, 5]))), "error factor");
    assert_shape(kfac(Gradient::Matrix(view([9, 6])), p, q), "gradient");
    assert_shape(kfac(low_rank([4, 8], [4, 6]), p, q), "gradient.inputs");
    assert_shape(kfac(low_rank([4, 9], [5, 6]), p, q), "gradient.errors");
    assert_scratch(refused([N, N], |out| {
        let (square, gradient) = (Factor::Inverse(view([N, N])), Gradient::Matrix(view([N, N])));
        without_scratch(|stack| foof_step(out, set, gradient, square, par(), stack))
    }));
    let mut exact = |damping, values: [usize; 2], vectors: [usize; 2]| {
        refused(shape, |out| {
            let input = Eigenbasis { values: &data[..values[0]], vectors: view([vectors[0]; 2]) };
            let error = Eigenbasis { values: &data[..values[1]], vectors: view([vectors[1]; 2]) };
            exact_step(out, set, gradient, input, error, damping, par(), MemStack::new(&mut memory))
        })
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(exact(bad, [9, 6], [9, 6]), "damping");
    }
    assert_shape(exact(1.0, [8, 6], [9, 6]), "input values");
    assert_shape(exact(1.0, [9, 7], [9, 6]), "error values");
    assert_shape(exact(1.0, [9, 6], [8, 6]), "input vectors");
    assert_shape(exact(1.0, [9, 6], [9, 7]), "error vectors");
}

#[test]
fn dampings_eigenvectors_and_layers() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(damping::heuristic(1.0, 1.0, bad).expect_err("bad"), "damping");
    }
    assert_parameter(damping::heuristic(-1.0, 1.0, 1.0).expect_err("bad"), "mean_a");
    assert_parameter(damping::heuristic(1.0, f64::NAN, 1.0).expect_err("bad"), "mean_b");
    let mut data = vec![1.0; 16];
    let eigen = |data: &[f64], rows: usize| {
        let mut values = vec![7.0; 4];
        let error =
            refused([4, 4], |out| eigen::self_adjoint_eigen_alloc(&mut values, out, matrix(data, [rows, 4]), 1.0));
        assert_eq!(values, [7.0; 4]);
        error
    };
    assert_shape(eigen(&data, 3), "a");
    data[4 * 2 + 1] = f64::NAN;
    assert_eq!(eigen(&data, 4), Error::NotFinite { argument: "a", index: vec![2, 1] });
    assert_parameter(Layer::dense(0, 3).expect_err("no inputs"), "inputs");
    assert_parameter(Layer::dense(3, 0).expect_err("no outputs"), "outputs");
    let layer = Layer::dense(3, 3).expect("sizes");
    assert_parameter(layer.with_positions(0).expect_err("no positions"), "positions");
}

fn layers() -> Vec<Layer> {
    vec![Layer::dense(3, 2).expect("sizes").with_bias(), Layer::dense(2, 2).expect("sizes")]
}

#[test]
fn options_of_optimisers() {
    let layers = layers();
    let refuse = |error: Option<Error>, named: &str| assert_parameter(error.expect("bad options"), named);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60] {
        // The last is zero in single precision.
        let options = FoofOptions { damping: bad, ..Default::default() };
        refuse(Foof::<f32>::new(&layers, options, par()).err(), "damping");
        let options = KfacOptions { damping: bad, ..Default::default() };
        refuse(Kfac::<f32>::new(&layers, options, par()).err(), "damping");
        let options = EkfacOptions { damping: bad, ..Default::default() };
        refuse(Ekfac::<f32>::new(&layers, options, par()).err(), "damping");
    }
    for bad in [-0.1, 1.0, f64::NAN, 1.0 - 1e-12] {
        // The last is one in single precision.
        let options = FoofOptions { factor_decay: bad, ..Default::default() };
        refuse(Foof::<f32>::new(&layers, options, par()).err(), "factor_decay");
        let options = KfacOptions { factor_decay: bad, ..Default::default() };
        refuse(Kfac::<f32>::new(&layers, options, par()).err(), "factor_decay");
    }
    for (period, observe, named) in [(0, 1, "period"), (5, 0, "observe"), (5, 6, "observe")] {
        let schedule = Schedule { period, observe, ..Default::default() };
        refuse(Foof::<f32>::new(&layers, FoofOptions { schedule, ..Default::default() }, par()).err(), named);
    }
    let plain = StepOptions::default();
    for (step, named) in [
        (StepOptions { learning_rate: -1.0, ..plain }, "learning_rate"),
        (StepOptions { learning_rate: f64::NAN, ..plain }, "learning_rate"),
        (StepOptions { momentum: 1.0, ..plain }, "momentum"),
        (StepOptions { momentum: f64::NAN, ..plain }, "momentum"),
        (StepOptions { weight_decay: -1.0, ..plain }, "weight_decay"),
        (StepOptions { polyak: Some(1.0), ..plain }, "polyak"),
    ] {
        refuse(Foof::<f32>::new(&layers, FoofOptions { step, ..Default::default() }, par()).err(), named);
    }
    let options = FoofOptions { scale: FoofScale::KfacNorm, ..Default::default() };
    assert!(matches!(Foof::<f32>::new(&layers, options, par()).err(), Some(Error::Missing { .. })));
}

/// Everything that is saved, by name.
fn state<P: Preconditioner<f64>>(optimizer: &Optimizer<f64, P>) -> Vec<(String, Vec<u8>)> {
    let file = optimizer.save().expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("its own file").tensors();
    let mut entries: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect();
    entries.sort();
    entries
}

/// A mini-batch of five for [`layers`], in which a test puts what is bad.
struct Batch {
    x: [Vec<f64>; 2],
    e: [Vec<f64>; 2],
    rows: usize,
}

impl Batch {
    fn new() -> Self {
        let wave = |n: usize| (0..n).map(|k| (k as f64).sin()).collect();
        Batch { x: [wave(15), wave(10)], e: [wave(10), wave(10)], rows: 5 }
    }

    fn seen(&self) -> Vec<Observation<'_, f64>> {
        let (layers, rows) = (layers(), self.rows);
        let layer = |l: usize| {
            let inputs = matrix(&self.x[l], [rows, layers[l].inputs()]);
            Observation::new(inputs).with_errors(matrix(&self.e[l], [rows, layers[l].outputs()]))
        };
        vec![layer(0), layer(1)]
    }
}

/// Refreshes at every second step.
fn kfac() -> Kfac<f64> {
    let step = StepOptions { momentum: 0.5, polyak: Some(0.5), ..Default::default() };
    let schedule = Schedule { period: 2, observe: 2, ..Default::default() };
    Kfac::new(&layers(), KfacOptions { step, schedule, ..Default::default() }, par()).expect("valid options")
}

/// The error of an operation that must leave the state alone.
#[track_caller]
fn left_alone(optimizer: &mut Kfac<f64>, f: impl FnOnce(&mut Kfac<f64>) -> Result<(), Error>) -> Error {
    let before = state(optimizer);
    let error = f(optimizer).expect_err("bad input");
    assert_eq!(state(optimizer), before, "{error}: the state changed");
    error
}

#[track_caller]
fn in_layer(error: Error, expected: usize) -> Error {
    match error {
        Error::Layer { layer, source } if layer == expected => *source,
        other => panic!("{other}, not in layer {expected}"),
    }
}

#[test]
fn observations() {
    let mut kfac = kfac();
    assert!(matches!(left_alone(&mut kfac, |o| o.refresh()), Error::Missing { what: "observations", .. }));
    let good = Batch::new();
    kfac.observe(&good.seen()).expect("finite");
    kfac.refresh().expect("positive definite");
    assert_shape(left_alone(&mut kfac, |o| o.observe(&good.seen()[..1])), "observations");
    let mut swapped = good.seen();
    swapped.swap(0, 1);
    assert_shape(in_layer(left_alone(&mut kfac, |o| o.observe(&swapped)), 0), "inputs");
    let mut missing = good.seen();
    missing[1].errors = None;
    let error = in_layer(left_alone(&mut kfac, |o| o.observe(&missing)), 1);
    assert!(matches!(error, Error::Missing { what: "errors", .. }), "{error}");
    let mut fewer = good.seen();
    fewer[1].errors = Some(matrix(&good.e[1], [4, 2]).into());
    assert_shape(in_layer(left_alone(&mut kfac, |o| o.observe(&fewer)), 1), "errors");
    let empty = Batch { rows: 0, ..Batch::new() };
    let error = in_layer(left_alone(&mut kfac, |o| o.observe(&empty.seen())), 0);
    assert_eq!(error, Error::EmptyBatch { argument: "inputs", shape: vec![0, 3] });
    for bad in [f64::NAN, f64::INFINITY] {
        let mut batch = Batch::new();
        batch.x[1][2 * 3 + 1] = bad;
        let error = in_layer(left_alone(&mut kfac, |o| o.observe(&batch.seen())), 1);
        assert_eq!(error, Error::NotFinite { argument: "inputs", index: vec![3, 1] });
        let mut batch = Batch::new();
        batch.e[0][2 * 4] = bad;
        let error = in_layer(left_alone(&mut kfac, |o| o.observe(&batch.seen())), 0);
        assert_eq!(error, Error::NotFinite { argument: "errors", index: vec![4, 0] });
    }
}

/// A step that fails, whose weights and state must be as they were.
#[track_caller]
fn failed_step(optimizer: &mut Kfac<f64>, shapes: [[usize; 2]; 2], gradients: [[usize; 2]; 2], seen: &Batch) -> Error {
    let (u, mut w) = (vec![1.0; 16], vec![3.0; 32]);
    let error = left_alone(optimizer, |o| {
        let (first, second) = w.split_at_mut(16);
        let mut weights = [first, second].into_iter().zip(shapes);
        let mut next = || weights.next().map(|(w, shape)| MatMut::new(w, shape).expect("a view")).expect("two");
        let mut weights = [next(), next()];
        o.step(&mut weights, &gradients.map(|shape| Gradient::Matrix(matrix(&u, shape))), &seen.seen())
    });
    assert!(w.iter().all(|&v| v == 3.0), "{error}: weights changed");
    error
}

#[test]
fn steps() {
    let (good, shapes) = (Batch::new(), [[2, 4], [2, 2]]);
    let mut kfac = kfac();
    assert!(matches!(failed_step(&mut kfac, shapes, shapes, &good), Error::Missing { what: "refresh", .. }));
    kfac.observe(&good.seen()).expect("finite");
    kfac.refresh().expect("positive definite");
    assert_shape(in_layer(failed_step(&mut kfac, [[2, 3], [2, 2]], shapes, &good), 0), "weights");
    assert_shape(in_layer(failed_step(&mut kfac, shapes, [[2, 4], [2, 1]], &good), 1), "gradient");
    let error = left_alone(&mut kfac, |o| o.step(&mut [], &[], &good.seen()));
    assert_shape(error, "weights");
    let mut bad = Batch::new();
    bad.x[0][0] = f64::NAN;
    let error = in_layer(failed_step(&mut kfac, shapes, shapes, &bad), 0);
    assert_eq!(error, Error::NotFinite { argument: "inputs", index: vec![0, 0] });
    let (u, mut w) = (vec![1.0; 8], [vec![0.0; 8], vec![0.0; 4]]);
    let gradients = [Gradient::Matrix(matrix(&u, [2, 4])), Gradient::Matrix(matrix(&u, [2, 2]))];
    let [first, second] = &mut w;
    let mut weights = [(first, [2, 4]), (second, [2, 2])].map(|(w, s)| MatMut::new(w, s).expect("a view"));
    kfac.step(&mut weights, &gradients, &good.seen()).expect("a step that observes and does not refresh");
    // The next step refreshes: finite activations whose factor overflows are found there.
    let mut huge = Batch::new();
    huge.x[1].iter_mut().for_each(|v| *v = 1e200);
    let error = failed_step(&mut kfac, shapes, shapes, &huge);
    let named = matches!(&error, Error::NotPositiveDefinite { layer: Some(1), .. } | Error::Layer { layer: 1, .. });
    assert!(named, "{error}");
    kfac.step(&mut weights, &gradients, &good.seen()).expect("a step after the failed one");
}
