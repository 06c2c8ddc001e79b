//! The optimisers: on the golden trajectory step by step, by hand on exact data, and saved and resumed.

use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, Foof, FoofDamping, FoofOptions, FoofScale, Kfac, KfacDamping, KfacOptions, Observation,
    Optimizer, Order, Preconditioner, Schedule, StepOptions, cosine,
};
use foof::{Element, Error, MatMut, MatRef, Par};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::compare::{assert_close, assert_exact, assert_same_bits};
use foof_oracle::golden::Golden;
use foof_oracle::kernels::isas;
use foof_oracle::network::{self, Pass};
use foof_oracle::trajectory::{self, Method, Settings};
use foof_oracle::{Dense, Random, fisher, rounded, steps};

/// A matrix of `T` that owns its entries.
struct Owned<T> {
    data: Vec<T>,
    shape: [usize; 2],
}

impl<T: Element> Owned<T> {
    fn new(dense: &Dense) -> Self {
        Owned { data: dense.data.iter().map(|&v| T::from_f64(v)).collect(), shape: [dense.rows, dense.cols] }
    }

    fn view(&self) -> MatRef<'_, T> {
        MatRef::new(&self.data, self.shape).expect("a view")
    }

    fn view_mut(&mut self) -> MatMut<'_, T> {
        MatMut::new(&mut self.data, self.shape).expect("a view")
    }

    fn dense(&self) -> Dense {
        Dense::from_slice(self.shape[0], self.shape[1], &self.data)
    }
}

/// What each layer shows of a mini-batch: inputs without the constant 1, and errors.
struct Batch<T>(Vec<[Owned<T>; 2]>);

impl<T: Element> Batch<T> {
    fn random(random: &mut Random, layers: &[Layer], n: usize) -> Self {
        let layer = |layer: &Layer| {
            let mut rows = |cols| Owned::new(&random.normals(n * layer.positions(), cols));
            [rows(layer.inputs()), rows(layer.outputs())]
        };
        Batch(layers.iter().map(layer).collect())
    }

    fn observations(&self) -> Vec<Observation<'_, T>> {
        self.0.iter().map(|[x, e]| Observation { inputs: x.view(), errors: Some(e.view()) }).collect()
    }

    /// Mean gradients over the rows.
    fn gradients(&self) -> Vec<Gradient<'_, T>> {
        let pairs = self.0.iter().map(|[x, e]| (x.view(), e.view(), T::from_f64(1.0 / x.shape[0] as f64)));
        pairs.map(|(inputs, errors, scale)| Gradient::LowRank { inputs, errors, scale }).collect()
    }
}

fn views<T: Element>(weights: &mut [Owned<T>]) -> Vec<MatMut<'_, T>> {
    weights.iter_mut().map(Owned::view_mut).collect()
}

fn zeros<T: Element>(layers: &[Layer]) -> Vec<Owned<T>> {
    let zero = |layer: &Layer| Owned::new(&Dense::zeros(layer.weight_shape()[0], layer.weight_shape()[1]));
    layers.iter().map(zero).collect()
}

/// `D` of every layer.
fn preconditioned<T: Element, P: Preconditioner<T>>(
    optimizer: &mut Optimizer<T, P>,
    gradients: &[Gradient<'_, T>],
) -> Vec<Dense> {
    let mut out = zeros::<T>(&optimizer.layers().to_vec());
    optimizer.precondition(&mut views(&mut out), gradients).expect("shapes agree");
    out.iter().map(Owned::dense).collect()
}

fn dense_layers(sizes: &[[usize; 2]]) -> Vec<Layer> {
    sizes.iter().map(|&[i, o]| Layer::dense(i, o).expect("sizes")).collect()
}

/// The bounds of `Approx` count `n + 1` roundings in a sweep of an inverse, our kernels `2 n + 4` (products rounded too, chunked
/// sums): at most three times as many. The oracle's own evaluation is off by one error more.
const EVALUATIONS: f64 = 3.0 + 1.0;

/// Each step starts from the golden weights of the step before, as in `tests/oracles/trajectory.rs`; activations and errors are the
/// oracle's.
fn follow<P: Preconditioner<f64>>(
    method: Method,
    name: &str,
    make: impl Fn(&[Layer], Settings, Par) -> Result<Optimizer<f64, P>, Error>,
) {
    let golden = Golden::load("trajectory");
    let values = golden.values("settings");
    let [initial, count, period, observed, factor_decay, momentum, weight_decay, damping] = values[..] else {
        panic!("eight settings");
    };
    let learning_rate = golden.scalar(&format!("{name}.eta"));
    let [initial, count, period, observed] = [initial, count, period, observed].map(|v| v as usize);
    let settings = Settings { initial, period, observed, factor_decay, momentum, weight_decay, damping, learning_rate };
    let shape = golden.shape("x");
    let (x, y) = (golden.values("x"), golden.labels("y"));
    let pass = |weights: &[Approx], batch: usize| -> Pass {
        let (rows, cols) = (shape[1], shape[2]);
        let x = Dense::from_slice(rows, cols, &x[batch * rows * cols..(batch + 1) * rows * cols]);
        network::pass(weights, network::Bias::Without, &Approx::exact_f64(x), &y[batch * rows..(batch + 1) * rows])
    };
    let batch = |pass: &Pass| -> Batch<f64> {
        let layers = pass.inputs.iter().zip(&pass.errors);
        Batch(layers.map(|(x, e)| [Owned::new(&x.value), Owned::new(&e.value)]).collect())
    };
    let stored = |prefix: &str| -> Vec<Approx> {
        (0..golden.layers()).map(|l| Approx::exact_f64(golden.matrix(&format!("{prefix}.{l}")))).collect()
    };
    for par in isas().into_iter().chain([Par::threads(2)]) {
        let mut weights = stored("weight");
        let layers: Vec<[usize; 2]> = weights.iter().map(|w| [w.value.cols, w.value.rows]).collect();
        let mut oracle = trajectory::Optimizer::new(method, settings, &weights);
        let mut optimizer = make(&dense_layers(&layers), settings, par).expect("valid options");
        for k in 0..initial {
            let pass = pass(&weights, k);
            oracle.observe(&pass);
            optimizer.observe(&batch(&pass).observations()).expect("finite");
        }
        oracle.refresh();
        optimizer.refresh().expect("positive definite");
        for t in 0..count {
            let pass = pass(&weights, initial + t);
            let (batch, expected) = (batch(&pass), oracle.step(t, &weights, &pass));
            let mut ours: Vec<Owned<f64>> = weights.iter().map(|w| Owned::new(&w.value)).collect();
            let seen = if optimizer.wants_observation() { batch.observations() } else { Vec::new() };
            optimizer.step(&mut views(&mut ours), &batch.gradients(), &seen).expect("a step");
            let golden = stored(&format!("{name}.step{t}"));
            for (l, ((ours, expected), golden)) in ours.iter().zip(&expected).zip(&golden).enumerate() {
                let what = format!("{par:?}: {name}, step {t}, layer {l}");
                let allowed = EVALUATIONS * expected.error;
                assert_close(&ours.dense(), &expected.value, allowed, &what);
                assert_close(&ours.dense(), &golden.value, allowed, &format!("{what}, PyTorch"));
                // Below single precision relative to the step: a step that did nothing, or another one, would show.
                let step = golden.value.minus(&weights[l].value).frobenius();
                assert!(allowed / step < Format::of::<f32>().unit, "{what}: tolerance {:e}", allowed / step);
            }
            weights = golden;
        }
        assert_eq!(optimizer.steps(), count as u64);
    }
}

fn schedule_of(settings: Settings) -> Schedule {
    let Settings { period, observed: observe, initial, .. } = settings;
    Schedule { period, observe, initial, order: Order::StepFirst }
}

fn step_of(settings: Settings) -> StepOptions {
    let Settings { learning_rate, momentum, weight_decay, .. } = settings;
    StepOptions { learning_rate, momentum, weight_decay, ..StepOptions::default() }
}

#[test]
fn foof_follows_the_golden_trajectory() {
    follow(Method::Foof, "foof", |layers, s, par| {
        let (schedule, step) = (schedule_of(s), step_of(s));
        let options =
            FoofOptions { damping: s.damping, factor_decay: s.factor_decay, schedule, step, ..Default::default() };
        Foof::new(layers, options, par)
    });
}

#[test]
fn kfac_follows_the_golden_trajectory() {
    follow(Method::Kfac, "kfac", |layers, s, par| {
        let (schedule, step) = (schedule_of(s), step_of(s));
        let options =
            KfacOptions { damping: s.damping, factor_decay: s.factor_decay, schedule, step, ..Default::default() };
        Kfac::new(layers, options, par)
    });
}

/// Never refreshes by itself in a test's few steps.
fn never() -> Schedule {
    Schedule { period: 1000, observe: 1, initial: 1, order: Order::StepFirst }
}

/// With `A = 2 I`, `lambda = 2` and dyadic constants every number is exact: the recurrences bit for bit, momentum from the third
/// step on.
#[test]
fn momentum_decay_and_averaging_by_hand() {
    let layers = dense_layers(&[[2, 3]]);
    let (eta, mu, decay, cap) = (0.5, 0.5, 0.25, 0.5);
    let step =
        StepOptions { learning_rate: eta, momentum: mu, momentum_start: 2, weight_decay: decay, polyak: Some(cap) };
    let options = FoofOptions { damping: 2.0, factor_decay: 0.0, schedule: never(), step, ..Default::default() };
    for par in isas() {
        let mut optimizer = Foof::<f64>::new(&layers, options, par).expect("valid options");
        let x = Owned::new(&Dense::identity(2).scaled(2.0));
        optimizer.observe(&[Observation { inputs: x.view(), errors: None }]).expect("finite");
        optimizer.refresh().expect("positive definite");
        assert!(optimizer.average(0).is_none(), "no average before the first step");
        let mut random = Random::new(1);
        let mut w = random.integers(3, 2, 8);
        let mut ours = vec![Owned::new(&w)];
        let (mut v, mut average) = (Dense::zeros(3, 2), Dense::zeros(3, 2));
        for t in 0..6 {
            let u = random.integers(3, 2, 8);
            let d = u.scaled(0.25);
            v = v.scaled(if t < 2 { 0.0 } else { mu }).plus(&d);
            w = w.scaled(1.0 - eta * decay).minus(&v.scaled(eta));
            let xi = if t == 0 { 0.0 } else { cap };
            average = average.scaled(xi).plus(&w.scaled(1.0 - xi));
            let u = Owned::new(&u);
            optimizer.step(&mut views(&mut ours), &[Gradient::Matrix(u.view())], &[]).expect("a step");
            assert_exact(&ours[0].dense(), &w, &format!("{par:?}: weights after step {t}"));
            let kept = optimizer.average(0).expect("an average");
            let kept = Dense::from_fn(3, 2, |i, j| kept.at([i, j]));
            assert_exact(&kept, &average, &format!("{par:?}: average after step {t}"));
        }
    }
}

/// A damped inverse in a format, as our kernels may compute it (see [`EVALUATIONS`]).
fn damped_inverse(a: &Approx, lambda: f64) -> Approx {
    let inverse = a.damped_inverse(lambda);
    let error = 3.0 * inverse.error;
    inverse.with_error(error)
}

fn approx<T: Element>(matrix: &Owned<T>) -> Approx {
    Approx::exact(matrix.dense(), Format::of::<T>())
}

/// The mean gradient and the factors of a layer's batch with their rounding.
fn layer_approx<T: Element>([x, e]: &[Owned<T>; 2], bias: bool) -> [Approx; 3] {
    let (plain, e) = (approx(x), approx(e));
    let x = if bias { plain.with_one() } else { plain };
    let n = x.value.rows;
    let u = e.transpose().matmul(&x).scaled(1.0 / n as f64);
    [u, rounded::second_moment(&x, n), rounded::second_moment(&e, n)]
}

/// With `m = 0`, `T = 1` and the refresh first, every step is exact FOOF on its own mini-batch; step first, on the one before.
#[test]
fn refresh_first_is_exact_foof_on_the_mini_batch() {
    let layers = vec![Layer::dense(5, 4).expect("sizes").with_bias(), Layer::dense(4, 3).expect("sizes")];
    let eta = 0.5;
    for order in [Order::RefreshFirst, Order::StepFirst] {
        let schedule = Schedule { period: 1, observe: 1, initial: 0, order };
        let step = StepOptions { learning_rate: eta, ..StepOptions::default() };
        let options = FoofOptions { damping: 0.5, factor_decay: 0.0, schedule, step, ..Default::default() };
        let mut optimizer = Foof::<f64>::new(&layers, options, Par::seq()).expect("valid options");
        let mut random = Random::new(2);
        let mut previous = Batch::<f64>::random(&mut random, &layers, 7);
        if order == Order::StepFirst {
            optimizer.observe(&previous.observations()).expect("finite");
            optimizer.refresh().expect("positive definite");
        }
        let mut weights = zeros::<f64>(&layers);
        for t in 0..4 {
            let batch = Batch::<f64>::random(&mut random, &layers, 7);
            let before: Vec<Approx> = weights.iter().map(approx).collect();
            optimizer.step(&mut views(&mut weights), &batch.gradients(), &batch.observations()).expect("a step");
            let factors = if order == Order::RefreshFirst { &batch } else { &previous };
            for l in 0..layers.len() {
                let bias = l == 0;
                let [u, ..] = layer_approx(&batch.0[l], bias);
                let [_, a, _] = layer_approx(&factors.0[l], bias);
                let d = u.matmul(&damped_inverse(&a, 0.5));
                let moved = before[l].plus(&d.scaled(-eta));
                moved.assert_matches(&weights[l].dense(), &format!("{order:?}: step {t}, layer {l}"));
            }
            previous = batch;
        }
    }
}

/// The schedule of the paper, seen through the number of mini-batches observed; observations that are not wanted are not read.
#[test]
fn the_schedule_decides_what_is_observed() {
    let layers = dense_layers(&[[3, 2]]);
    let schedule = Schedule { period: 5, observe: 2, initial: 1, order: Order::StepFirst };
    let options = FoofOptions { schedule, ..Default::default() };
    let mut optimizer = Foof::<f32>::new(&layers, options, Par::seq()).expect("valid options");
    let mut random = Random::new(3);
    let mut batch = || Batch::<f32>::random(&mut random, &layers, 4);
    optimizer.observe(&batch().observations()).expect("finite");
    optimizer.refresh().expect("positive definite");
    let mut weights = zeros::<f32>(&layers);
    let mut observed = Vec::new();
    for t in 0..10u64 {
        let before = optimizer.preconditioner().counters()[0];
        let batch = batch();
        let seen = if optimizer.wants_observation() { batch.observations() } else { Vec::new() };
        optimizer.step(&mut views(&mut weights), &batch.gradients(), &seen).expect("a step");
        if optimizer.preconditioner().counters()[0] > before {
            observed.push(t);
        }
    }
    assert_eq!(observed, [3, 4, 8, 9]);
}

/// A part of the preconditioner's state.
fn entry<T: Element, P: Preconditioner<T>>(optimizer: &Optimizer<T, P>, name: &str) -> Dense {
    let entries = optimizer.preconditioner().entries();
    let (_, shape, values) = entries.iter().find(|(found, ..)| found == name).expect("an entry of this name");
    Dense::from_slice(shape[0], shape.get(1).copied().unwrap_or(1), values)
}

/// EK-FAC: moments restart from `b a^T` at a refresh, then average `mean_n (Q_B^T G_n Q_A)²` in the refresh's basis, for one
/// position and several. The oracle takes the same eigenvectors and eigenvalues.
fn ekfac_against_the_oracle<T: Element>(positions: usize) {
    let layer = Layer::dense(5, 4).expect("sizes").with_positions(positions).expect("positions");
    let (layers, m, lambda) = (vec![layer], 0.5, 0.25);
    let options = EkfacOptions { damping: lambda, factor_decay: m, schedule: never(), ..Default::default() };
    for par in isas() {
        let mut optimizer = Ekfac::<T>::new(&layers, options, par).expect("valid options");
        let mut random = Random::new(4);
        let mut batch = || Batch::<T>::random(&mut random, &layers, 6);
        optimizer.observe(&batch().observations()).expect("finite");
        optimizer.refresh().expect("converges");
        let format = Format::of::<T>();
        let exact = |dense: Dense| Approx::exact(dense, format);
        let named = |name: &str| exact(entry(&optimizer, &format!("layer.0.{name}")));
        let [q_a, q_b] = ["input.used", "error.used"].map(named);
        let [a, b] = ["input.values", "error.values"].map(named);
        let mut moments = b.matmul(&a.transpose());
        for k in 0..3 {
            let what = format!("{par:?}: {positions} positions, after {k} observations");
            let batch = batch();
            let [u, ..] = layer_approx(&batch.0[0], false);
            let divided = q_b.transpose().matmul(&u).matmul(&q_a).divided_by_damped(&moments, lambda);
            let derived = q_b.matmul(&divided).matmul(&q_a.transpose());
            let got = &preconditioned(&mut optimizer, &batch.gradients())[0];
            derived.assert_matches(got, &what);
            let oracle = steps::ekfac_step(&u.value, &q_a.value, &q_b.value, &moments.value, lambda);
            derived.assert_matches(&oracle, &format!("{what}, the oracle"));
            optimizer.observe(&batch.observations()).expect("finite");
            let [x, e] = &batch.0[0];
            let (x, e) = (fisher::datapoints(&x.dense(), positions), fisher::datapoints(&e.dense(), positions));
            let squares: Vec<Approx> = x
                .iter()
                .zip(&e)
                .map(|(x, e)| {
                    let g = exact(e.clone()).matmul(&q_b).transpose().matmul(&exact(x.clone()).matmul(&q_a));
                    g.hadamard(&g)
                })
                .collect();
            moments = rounded::moving_average(&moments, &Approx::mean(&squares), m);
            moments.assert_matches(&entry(&optimizer, "layer.0.moments"), &format!("{what}: moments"));
        }
    }
}

#[test]
fn ekfac_moments_and_steps() {
    for positions in [1, 3] {
        ekfac_against_the_oracle::<f32>(positions);
        ekfac_against_the_oracle::<f64>(positions);
    }
}

/// K-FAC with exact damping: the dense solve of the Kronecker product, moved by the eigensolver's backward errors (as in
/// `tests/kronecker.rs`) and the evaluation's rounding.
#[test]
fn exact_damping_against_the_kronecker_product() {
    let layers = vec![Layer::dense(5, 4).expect("sizes").with_bias()];
    let options = KfacOptions {
        damping: 0.25,
        damping_rule: KfacDamping::Exact,
        factor_decay: 0.0,
        schedule: never(),
        ..Default::default()
    };
    let mut optimizer = Kfac::<f64>::new(&layers, options, Par::seq()).expect("valid options");
    let batch = Batch::<f64>::random(&mut Random::new(5), &layers, 9);
    optimizer.observe(&batch.observations()).expect("finite");
    optimizer.refresh().expect("converges");
    let [u, a, b] = layer_approx(&batch.0[0], true);
    let relative = |n: usize| 2.0 * n as f64 * F64.gamma(10 * n);
    let moved = |m: &Approx| m.clone().with_error(m.error + relative(m.value.rows) * m.norm());
    let solve = rounded::kfac_exact_step(&u, &moved(&a), &moved(&b), 0.25);
    let named = |name: &str| entry(&optimizer, &format!("layer.0.{name}"));
    let [q_a, q_b] = ["input.used", "error.used"].map(|name| {
        let q = named(name);
        let error = (q.rows as f64).sqrt() * relative(q.rows);
        Approx::exact_f64(q).with_error(error)
    });
    let denominators = Approx::exact_f64(named("error.values").matmul(&named("input.values").transpose()));
    let divided = q_b.transpose().matmul(&u).matmul(&q_a).divided_by_damped(&denominators, 0.25);
    let evaluation = q_b.matmul(&divided).matmul(&q_a.transpose()).error;
    let error = solve.error + evaluation;
    solve.with_error(error).assert_matches(&preconditioned(&mut optimizer, &batch.gradients())[0], "exact damping");
}

/// The paper's D.9: FOOF with K-FAC's `lambda_A`, times `lambda_A / lambda`, or with K-FAC's norm.
#[test]
fn foof_matched_to_kfac() {
    let layers = dense_layers(&[[5, 4], [4, 6]]);
    let lambda = 0.25;
    let batch = Batch::<f64>::random(&mut Random::new(6), &layers, 9);
    let options = KfacOptions { damping: lambda, factor_decay: 0.0, schedule: never(), ..Default::default() };
    let mut kfac = Kfac::<f64>::new(&layers, options, Par::seq()).expect("valid options");
    kfac.observe(&batch.observations()).expect("finite");
    kfac.refresh().expect("positive definite");
    let kfac = preconditioned(&mut kfac, &batch.gradients());
    for scale in [FoofScale::Own, FoofScale::LambdaA, FoofScale::KfacNorm] {
        let damping_rule = FoofDamping::KfacLambdaA;
        let options = FoofOptions {
            damping: lambda,
            damping_rule,
            scale,
            factor_decay: 0.0,
            schedule: never(),
            ..Default::default()
        };
        let mut foof = Foof::<f64>::new(&layers, options, Par::seq()).expect("valid options");
        foof.observe(&batch.observations()).expect("finite");
        foof.refresh().expect("positive definite");
        let got = preconditioned(&mut foof, &batch.gradients());
        for l in 0..layers.len() {
            let what = format!("{scale:?}, layer {l}");
            let [u, a, b] = layer_approx(&batch.0[l], false);
            let (lambda_a, lambda_b) = rounded::heuristic_damping(&a, &b, lambda);
            // The damping's own error moves the matrix that is inverted.
            let inverse = |m: &Approx, lambda: foof_oracle::approx::Scalar| {
                let moved = (m.value.rows as f64).sqrt() * lambda.error;
                damped_inverse(&m.clone().with_error(m.error + moved), lambda.value)
            };
            let own = u.matmul(&inverse(&a, lambda_a));
            let full = inverse(&b, lambda_b).matmul(&own);
            full.assert_matches(&kfac[l], &format!("{what}: K-FAC"));
            // A factor off by `e` scales an update off by `e` times its norm.
            let (factor, relative) = match scale {
                FoofScale::Own => (1.0, 0.0),
                FoofScale::LambdaA => (lambda_a.value / lambda, lambda_a.error / lambda_a.value),
                FoofScale::KfacNorm => {
                    let norms =
                        [&own, &full].map(|m| m.error / m.value.frobenius() + F64.gamma(m.value.data.len() + 4));
                    (full.value.frobenius() / own.value.frobenius(), norms[0] + norms[1])
                }
            };
            let error = factor * (own.error + (relative + F64.gamma(4)) * own.norm());
            let derived = Approx::exact_f64(own.value.scaled(factor)).with_error(error);
            derived.assert_matches(&got[l], &what);
        }
    }
}

/// `<D, D'> / (|D| |D'|)`: `n` terms in each of three sums, two roots, a product and a quotient, relative to at most one; the
/// oracle's likewise.
#[test]
fn cosines_of_updates() {
    let mut random = Random::new(7);
    let (a, b) = (Owned::<f64>::new(&random.normals(6, 5)), Owned::new(&random.normals(6, 5)));
    let flat = |m: &Owned<f64>| m.dense().vec();
    let dot = |x: &Dense, y: &Dense| x.transpose().matmul(y)[(0, 0)];
    let (x, y) = (flat(&a), flat(&b));
    let expected = dot(&x, &y) / (x.frobenius() * y.frobenius());
    let got = cosine(a.view(), b.view()).expect("one shape");
    assert!((got - expected).abs() <= 2.0 * F64.gamma(2 * 30 + 4), "{got} is not {expected}");
    assert!((cosine(a.view(), a.view()).expect("one shape") - 1.0).abs() <= 2.0 * F64.gamma(2 * 30 + 4));
}

/// Trains a few steps, saves, resumes in a new optimiser, and trains both on.
fn resumes<P: Preconditioner<f32>>(make: impl Fn(&[Layer], StepOptions, Schedule) -> Optimizer<f32, P>) {
    let layers = vec![Layer::dense(5, 4).expect("sizes").with_bias(), Layer::dense(4, 3).expect("sizes")];
    let step = StepOptions { momentum: 0.9, polyak: Some(StepOptions::POLYAK), ..StepOptions::default() };
    let schedule = Schedule { period: 4, observe: 2, initial: 2, order: Order::StepFirst };
    let mut random = Random::new(8);
    let mut one = make(&layers, step, schedule);
    let batches: Vec<Batch<f32>> = (0..16).map(|_| Batch::random(&mut random, &layers, 5)).collect();
    for batch in &batches[..2] {
        one.observe(&batch.observations()).expect("finite");
    }
    one.refresh().expect("definite");
    let mut weights = zeros::<f32>(&layers);
    let train = |optimizer: &mut Optimizer<f32, P>, weights: &mut [Owned<f32>], batches: &[Batch<f32>]| {
        for batch in batches {
            optimizer.step(&mut views(weights), &batch.gradients(), &batch.observations()).expect("a step");
        }
    };
    // Stops between an observation and its refresh.
    train(&mut one, &mut weights, &batches[2..9]);
    let saved = one.save().expect("a file");
    let mut other = make(&layers, step, schedule);
    let fresh = other.save().expect("a file");
    refuses_damaged(&mut other, &saved, &fresh);
    other.load(&saved).expect("the same optimiser");
    assert_same_state::<f32>(&other.save().expect("a file"), &saved, "resumed");
    let mut others: Vec<Owned<f32>> = weights.iter().map(|w| Owned { data: w.data.clone(), shape: w.shape }).collect();
    train(&mut one, &mut weights, &batches[9..]);
    train(&mut other, &mut others, &batches[9..]);
    for (ours, theirs) in weights.iter().zip(&others) {
        assert_same_bits(&theirs.data, &ours.data, P::NAME);
    }
    assert_same_state::<f32>(&other.save().expect("a file"), &one.save().expect("a file"), "trained on");
    // Other layers, another method's name, momentum that is not there.
    let fewer = &layers[..1];
    for mut wrong in [make(fewer, step, schedule), make(&layers, StepOptions::default(), schedule)] {
        let before = wrong.save().expect("a file");
        let error = wrong.load(&saved).expect_err("of another optimiser");
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert_same_state::<f32>(&wrong.save().expect("a file"), &before, "as it was");
    }
}

/// Tensors, not their order in the header, make a state.
fn assert_same_state<T>(got: &[u8], want: &[u8], what: &str) {
    let [got, want] = [got, want].map(|bytes| safetensors::SafeTensors::deserialize(bytes).expect("a file"));
    assert_eq!(got.len(), want.len(), "{what}");
    for name in want.names() {
        let data = |file: &safetensors::SafeTensors<'_>| file.tensor(name).expect("an entry").data().to_vec();
        assert_eq!(data(&got), data(&want), "{what}: {name}");
    }
}

/// Files cut short, and single bytes changed: refused, the state as it was; or, in a place that means nothing, read as it was saved.
fn refuses_damaged<P: Preconditioner<f32>>(optimizer: &mut Optimizer<f32, P>, saved: &[u8], fresh: &[u8]) {
    for length in (0..saved.len()).step_by(97).chain([saved.len() - 1]) {
        let error = optimizer.load(&saved[..length]).expect_err("truncated");
        assert!(matches!(error, Error::State { .. }), "{length} bytes: {error}");
    }
    assert_same_state::<f32>(&optimizer.save().expect("a file"), fresh, "after truncated files");
    for at in (0..saved.len()).step_by(29) {
        let mut damaged = saved.to_vec();
        damaged[at] ^= 0x10;
        if let Err(error) = optimizer.load(&damaged) {
            assert!(matches!(error, Error::State { .. }), "byte {at}: {error}");
            assert_same_state::<f32>(&optimizer.save().expect("a file"), fresh, &format!("after byte {at}"));
        } else {
            assert_same_state::<f32>(&optimizer.save().expect("a file"), saved, &format!("byte {at} means nothing"));
            optimizer.load(fresh).expect("its own state");
        }
    }
}

#[test]
fn states_resume_bit_for_bit_and_damaged_ones_are_refused() {
    resumes(|layers, step, schedule| {
        Foof::new(layers, FoofOptions { step, schedule, ..Default::default() }, Par::seq()).expect("valid options")
    });
    for damping_rule in [KfacDamping::Heuristic, KfacDamping::Exact] {
        resumes(|layers, step, schedule| {
            let options = KfacOptions { damping_rule, step, schedule, ..Default::default() };
            Kfac::new(layers, options, Par::seq()).expect("valid options")
        });
    }
    resumes(|layers, step, schedule| {
        Ekfac::new(layers, EkfacOptions { step, schedule, ..Default::default() }, Par::seq()).expect("valid options")
    });
}

#[test]
fn states_of_other_methods_and_types_are_refused() {
    let layers = dense_layers(&[[3, 2]]);
    let foof = Foof::<f32>::new(&layers, FoofOptions::default(), Par::seq()).expect("valid options");
    let saved = foof.save().expect("a file");
    let entry = |error: Error| match error {
        Error::State { entry, .. } => entry,
        other => panic!("{other}"),
    };
    let mut kfac = Kfac::<f32>::new(&layers, KfacOptions::default(), Par::seq()).expect("valid options");
    assert_eq!(entry(kfac.load(&saved).expect_err("another method")), "method");
    let mut wide = Foof::<f64>::new(&layers, FoofOptions::default(), Par::seq()).expect("valid options");
    assert_eq!(entry(wide.load(&saved).expect_err("another type")), "layer.0.input.running");
}
