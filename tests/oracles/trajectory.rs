//! The oracle optimisers against the golden training runs, step by step.
//!
//! Each step starts from the golden weights of the step before, so that a tolerance speaks of one step and not of how a
//! network amplifies differences over many. What is carried over, the factors' averages and the velocity, forgets old
//! errors geometrically (by `m` and `mu`), and its error is carried with it.

use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::Format;
use foof_oracle::golden::Golden;
use foof_oracle::network::{self, Bias, Pass};
use foof_oracle::trajectory::{Method, Optimizer, Settings};

fn settings(golden: &Golden, method: &str) -> (Settings, usize) {
    let values = golden.values("settings");
    let [initial, steps, period, observed, m, mu, decay, lambda] = values[..] else {
        panic!("eight settings");
    };
    let settings = Settings {
        initial: initial as usize,
        period: period as usize,
        observed: observed as usize,
        factor_decay: m,
        momentum: mu,
        weight_decay: decay,
        damping: lambda,
        learning_rate: golden.scalar(&format!("{method}.eta")),
    };
    (settings, steps as usize)
}

fn follow(method: Method, name: &str) {
    let golden = Golden::load("trajectory");
    let (settings, steps) = settings(&golden, name);
    let shape = golden.shape("x");
    let (x, y) = (golden.values("x"), golden.labels("y"));
    let pass = |weights: &[Approx], batch: usize| -> Pass {
        let (rows, cols) = (shape[1], shape[2]);
        let x = &x[batch * rows * cols..(batch + 1) * rows * cols];
        let x = Approx::exact_f64(Dense::from_slice(rows, cols, x));
        let labels = &y[batch * rows..(batch + 1) * rows];
        network::pass(weights, Bias::Without, &x, labels)
    };
    let stored = |prefix: &str| -> Vec<Approx> {
        (0..golden.layers()).map(|l| Approx::exact_f64(golden.matrix(&format!("{prefix}.{l}")))).collect()
    };
    let mut weights = stored("weight");
    let mut optimizer = Optimizer::new(method, settings, &weights);
    for batch in 0..settings.initial {
        optimizer.observe(&pass(&weights, batch));
    }
    optimizer.refresh();
    for t in 0..steps {
        let at = pass(&weights, settings.initial + t);
        let moved = optimizer.step(t, &weights, &at);
        let golden = stored(&format!("{name}.step{t}"));
        for (l, (moved, golden)) in moved.iter().zip(&golden).enumerate() {
            let what = format!("{name}, step {t}, layer {l}");
            moved.assert_matches(&golden.value, &what);
            // Below single precision relative to the step itself: a step that did nothing, or another one, would show.
            let step = golden.value.minus(&weights[l].value).frobenius();
            let relative = moved.error / step;
            assert!(relative < Format::of::<f32>().unit, "{what}: tolerance {relative:e}");
        }
        weights = golden;
    }
}

#[test]
fn foof() {
    follow(Method::Foof, "foof");
}

#[test]
fn kfac() {
    follow(Method::Kfac, "kfac");
}

#[test]
fn natural_gradient() {
    follow(Method::NaturalGradient, "ng");
}
