//! Momentum, decay, averaging and the schedule.

use crate::batch::{Batch, Owned, approx, dense_layers, layer_approx, never, views, zeros};
use foof::Par;
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{Foof, FoofOptions, Observation, Order, Preconditioner, Schedule, StepOptions};
use foof_oracle::approx::Approx;
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random};

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
        let x = Owned::<f64>::new(&Dense::identity(2).scaled(2.0));
        optimizer.observe(&[Observation::new(x.view())]).expect("finite");
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
                let d = u.matmul(&a.damped_inverse(0.5));
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
