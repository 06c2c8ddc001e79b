//! Errors of optimisers; weights and state are as they were.

use crate::{assert_parameter, assert_shape, matrix, par};
use foof::convolution::{Axis, Conv};
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{
    Activations, Ekfac, EkfacOptions, FisherBlocks, Foof, FoofDamping, FoofOptions, FoofScale, Kfac, KfacDamping,
    KfacOptions, NaturalGradient, NaturalGradientOptions, Observation, Optimizer, Preconditioner, Schedule,
    StepOptions,
};
use foof::{Error, MatMut, View};

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
fn left_alone<P: Preconditioner<f64>>(
    optimizer: &mut Optimizer<f64, P>,
    f: impl FnOnce(&mut Optimizer<f64, P>) -> Result<(), Error>,
) -> Error {
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

/// What every method refuses, in each layer and on each side, with its state as it was: observing, refreshing and preconditioning.
fn refuses<P: Preconditioner<f64>>(mut optimizer: Optimizer<f64, P>, reads_errors: bool) {
    let o = &mut optimizer;
    let good = Batch::new();
    assert!(matches!(left_alone(o, |o| o.refresh()), Error::Missing { what: "observations", .. }));
    let u = vec![1.0; 8];
    let shapes = [[2, 4], [2, 2]];
    let precondition = |o: &mut Optimizer<f64, P>, outputs: &[[usize; 2]], gradients: &[[usize; 2]]| {
        let mut data = vec![vec![3.0; 8]; outputs.len()];
        let error = left_alone(o, |o| {
            let views = data.iter_mut().zip(outputs).map(|(d, &shape)| MatMut::new(d, shape).expect("a view"));
            let mut views: Vec<_> = views.collect();
            let gradients: Vec<_> = gradients.iter().map(|&shape| Gradient::Matrix(matrix(&u, shape))).collect();
            o.precondition(&mut views, &gradients)
        });
        assert!(data.iter().flatten().all(|&v| v == 3.0), "{error}: outputs changed");
        error
    };
    let error = precondition(o, &shapes, &shapes);
    assert!(matches!(error, Error::Missing { what: "refresh", .. }), "{error}");
    o.observe(&good.seen()).expect("finite");
    o.refresh().expect("a refresh");
    assert_shape(precondition(o, &shapes[..1], &shapes), "weights");
    assert_shape(precondition(o, &shapes, &shapes[..1]), "gradients");
    assert_shape(in_layer(precondition(o, &[[2, 4], [2, 3]], &shapes), 1), "weights");
    assert_shape(in_layer(precondition(o, &shapes, &[[2, 3], [2, 2]]), 0), "gradient");
    let error = in_layer(
        left_alone(o, |o| {
            let (mut first, mut second) = ([3.0; 8], [3.0; 4]);
            let mut out = [MatMut::new(&mut first, [2, 4])?, MatMut::new(&mut second, [2, 2])?];
            let none = |d: usize| matrix(&u[..0], [0, d]);
            let gradients = [
                Gradient::Matrix(matrix(&u, [2, 4])),
                Gradient::LowRank { inputs: none(2), errors: none(2), scale: 1.0 },
            ];
            let result = o.precondition(&mut out, &gradients);
            assert!(first.iter().chain(&second).all(|&v| v == 3.0), "outputs changed");
            result
        }),
        1,
    );
    assert_eq!(error, Error::EmptyBatch { argument: "gradient", shape: vec![0, 2] });
    for layer in 0..2 {
        for (argument, rows) in [("inputs", 3), ("errors", 4)] {
            let mut batch = Batch::new();
            let (side, width) = match argument {
                "inputs" => (&mut batch.x[layer], [3, 2][layer]),
                _ => (&mut batch.e[layer], 2),
            };
            side[rows * width + 1] = f64::NEG_INFINITY;
            if argument == "inputs" || reads_errors {
                let error = in_layer(left_alone(o, |o| o.observe(&batch.seen())), layer);
                assert_eq!(error, Error::NotFinite { argument, index: vec![rows, 1] });
            }
        }
    }
    // Finite inputs whose factor overflows: observed, and refused by the refresh, which leaves what is in use.
    let mut huge = Batch::new();
    huge.x[1].iter_mut().for_each(|v| *v = 1e200);
    o.observe(&huge.seen()).expect("finite");
    let error = left_alone(o, |o| o.refresh());
    let named = matches!(&error, Error::NotPositiveDefinite { layer: Some(1), .. } | Error::Layer { layer: 1, .. });
    assert!(named, "{error}");
}

#[test]
fn every_method_is_left_alone() {
    let layers = layers();
    let matched = FoofOptions { damping_rule: FoofDamping::KfacLambdaA, ..Default::default() };
    refuses(Foof::new(&layers, FoofOptions::default(), par()).expect("valid options"), false);
    refuses(Foof::new(&layers, matched, par()).expect("valid options"), true);
    for damping_rule in [KfacDamping::Heuristic, KfacDamping::Exact] {
        let options = KfacOptions { damping_rule, ..Default::default() };
        refuses(Kfac::new(&layers, options, par()).expect("valid options"), true);
    }
    refuses(Ekfac::new(&layers, EkfacOptions::default(), par()).expect("valid options"), true);
    let options = NaturalGradientOptions { blocks: FisherBlocks::Diagonal, ..NaturalGradientOptions::new(5) };
    refuses(NaturalGradient::new(&layers, options, par()).expect("valid options"), true);
}

/// Rows that are no whole datapoints, or no whole labels.
#[test]
fn positions_and_labels() {
    let layer = Layer::dense(2, 2).expect("sizes").with_positions(3).expect("positions");
    let data = vec![1.0; 40];
    let mut kfac = Kfac::new(&[layer], KfacOptions::default(), par()).expect("valid options");
    for (inputs, errors, named) in [(7, 7, "inputs"), (2, 2, "inputs"), (6, 9, "errors"), (6, 3, "errors")] {
        let seen = Observation::new(matrix(&data, [inputs, 2])).with_errors(matrix(&data, [errors, 2]));
        let error = left_alone(&mut kfac, |o| o.observe(&[seen]));
        assert_shape(in_layer(error, 0), named);
    }
}

#[test]
fn learning_rates_and_metrics() {
    let mut kfac = kfac();
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(left_alone(&mut kfac, |o| o.set_learning_rate(bad)), "learning_rate");
    }
    let data = vec![1.0; 8];
    let metric = |o: &Kfac<f64>, layer, b, damping| {
        o.metric_cosine(layer, matrix(&data, [2, 4]), matrix(&data, b), damping).expect_err("bad input")
    };
    assert!(matches!(metric(&kfac, 0, [2, 4], 1.0), Error::Missing { what: "observations", .. }));
    kfac.observe(&Batch::new().seen()).expect("finite");
    assert_parameter(metric(&kfac, 2, [2, 4], 1.0), "layer");
    assert_shape(metric(&kfac, 0, [4, 2], 1.0), "b");
    assert_shape(metric(&kfac, 1, [2, 4], 1.0), "factor");
    assert_parameter(metric(&kfac, 0, [2, 4], -1.0), "damping");
}

/// Images of other shapes, ranks and counts, what is not finite among them, and gradients in low rank.
#[test]
fn images_of_convolutions() {
    let axis = Axis::new(4, 3).padding(1);
    let conv = Conv::new(4, 2, [axis, axis]).expect("a convolution").with_groups(2).expect("groups").with_bias();
    let layers = [Layer::dense(3, 2).expect("sizes"), Layer::conv(conv)];
    let mut ekfac = Ekfac::<f64>::new(&layers, EkfacOptions::default(), par()).expect("valid options");
    let o = &mut ekfac;
    let data = vec![1.0; 1024];
    let view = |shape: [usize; 4]| View::new(&data[..shape.iter().product()], shape).expect("a view");
    let dense = Observation::new(matrix(&data, [3, 3])).with_errors(matrix(&data, [3, 2]));
    let good = Observation::new(view([3, 4, 4, 4])).with_errors(view([3, 2, 4, 4]));
    o.observe(&[dense, good]).expect("finite");
    o.refresh().expect("converges");
    let mut refused = |seen: Observation<'_, f64>| in_layer(left_alone(o, |o| o.observe(&[dense, seen])), 1);
    let rank = View::new(&data[..192], [3, 4, 16]).expect("a view");
    let volume = View::new(&data[..192], [3, 4, 1, 4, 4]).expect("a view");
    for inputs in [
        Activations::from(view([3, 3, 4, 4])),
        view([3, 4, 4, 5]).into(),
        rank.into(),
        volume.into(),
        matrix(&data, [48, 18]).into(),
    ] {
        assert_shape(refused(Observation { inputs, ..good }), "inputs");
    }
    for errors in [Activations::from(view([3, 4, 4, 4])), view([4, 2, 4, 4]).into(), view([2, 2, 4, 4]).into()] {
        assert_shape(refused(Observation { errors: Some(errors), ..good }), "errors");
    }
    let none = View::<f64, 4>::new(&[], [0, 4, 4, 4]).expect("a view");
    let error = refused(Observation { inputs: none.into(), ..good });
    assert_eq!(error, Error::EmptyBatch { argument: "inputs", shape: vec![0, 4, 4, 4] });
    let error = refused(Observation { errors: None, ..good });
    assert!(matches!(error, Error::Missing { what: "errors", .. }), "{error}");
    for (argument, shape) in [("inputs", [3, 4, 4, 4]), ("errors", [3, 2, 4, 4])] {
        let mut bad = vec![1.0; shape.iter().product()];
        let [_, c, h, w] = shape;
        bad[((2 * c + 1) * h + 3) * w + 2] = f64::NAN;
        let bad = View::new(&bad, shape).expect("a view");
        let seen = match argument {
            "inputs" => Observation { inputs: bad.into(), ..good },
            _ => good.with_errors(bad),
        };
        assert_eq!(refused(seen), Error::NotFinite { argument, index: vec![2, 1, 3, 2] });
    }
    let image = left_alone(o, |o| o.observe(&[good, good]));
    assert_shape(in_layer(image, 0), "inputs");
    let (mut first, mut second) = (vec![3.0; 6], vec![3.0; 38]);
    let error = left_alone(o, |o| {
        let mut out = [(&mut first, [2, 3]), (&mut second, [2, 19])].map(|(d, s)| MatMut::new(d, s).expect("a view"));
        let (inputs, errors) = (matrix(&data, [48, 18]), matrix(&data, [48, 2]));
        let low_rank = Gradient::LowRank { inputs, errors, scale: 1.0 };
        o.precondition(&mut out, &[Gradient::Matrix(matrix(&data, [2, 3])), low_rank])
    });
    assert_parameter(in_layer(error, 1), "gradient.rows");
    assert!(first.iter().chain(&second).all(|&v| v == 3.0), "outputs changed");
    assert_parameter(Layer::conv(conv).with_positions(16).expect_err("a convolution"), "positions");
}
