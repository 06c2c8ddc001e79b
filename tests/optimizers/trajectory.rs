//! FOOF and K-FAC on the golden trajectory.

use crate::batch::{Batch, Owned, dense_layers, views};
use foof::layer::Layer;
use foof::optim::{
    Foof, FoofOptions, Kfac, KfacOptions, NaturalGradient, NaturalGradientOptions, Optimizer, Order, Preconditioner,
    Schedule, StepOptions,
};
use foof::{Error, Par};
use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::Format;
use foof_oracle::compare::assert_close;
use foof_oracle::golden::Golden;
use foof_oracle::kernels::isas;
use foof_oracle::network::{self, Pass};
use foof_oracle::trajectory::{self, Method, Settings};

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
                // Ours and the oracle's evaluations are each off by at most the error.
                let allowed = 2.0 * expected.error;
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

/// `F` of the mini-batch before: observed and factored after every step.
#[test]
fn natural_gradient_follows_the_golden_trajectory() {
    let rows = Golden::load("trajectory").shape("x")[1];
    follow(Method::NaturalGradient, "ng", |layers, s, par| {
        let schedule = Schedule { period: 1, observe: 1, initial: s.initial, order: Order::StepFirst };
        let options = NaturalGradientOptions {
            damping: s.damping,
            schedule,
            step: step_of(s),
            ..NaturalGradientOptions::new(rows)
        };
        NaturalGradient::new(layers, options, par)
    });
}
