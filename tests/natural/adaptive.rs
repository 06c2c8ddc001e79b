//! Step, momentum and damping of the exact quadratic model.

use crate::asks_for_enough;
use crate::batch::{Batch, Owned, never, preconditioned, views, zeros};
use crate::network::{Kind, Network, integers};
use foof::layer::Layer;
use foof::optim::{
    Foof, FoofOptions, Kfac, KfacOptions, LevenbergMarquardt, ModelStep, NaturalGradient, NaturalGradientOptions,
    Optimizer, Preconditioner, QuadraticModel, StepOptions, reduction_ratio,
};
use foof::woodbury::{Direction, LayerBatch};
use foof::{Error, MatRef, MemStack, Par};
use foof_oracle::bounds::F64;
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random, fisher};

fn dot(a: &Dense, b: &Dense) -> f64 {
    a.transpose().matmul(b)[(0, 0)]
}

/// On integers, with 4 datapoints and a gradient over 4 others, all numbers of the model are exact; its least is the solution of the two equations, by
/// elimination backward stable (Higham theorem 9.4): `gamma_6 |L||U|`, the matrix itself exact.
#[test]
fn the_model_of_integers_is_exact() {
    let kinds = [Kind::dense(3, 2), Kind::dense(2, 4)];
    let (net, other) =
        (Network::<f64>::new(&kinds, 4, 1, integers(81, 3)), Network::<f64>::new(&kinds, 4, 1, integers(82, 3)));
    let p = net.weights();
    let mut random = Random::new(83);
    let [d, previous] = [(); 2].map(|()| random.integers(p, 1, 3));
    let g = net.gradients();
    let u = other.gradients().transpose().matmul(&Dense::from_fn(4, 1, |_, _| 0.25));
    let curvature = fisher::fisher(&g, 4);
    let form = |m: &Dense, a: &Dense, b: &Dense| dot(a, &m.matmul(b));
    for par in isas() {
        let parts = |v: &'_ Dense| -> Vec<MatRef<'static, f64>> {
            let parts = net.parts(Vec::leak(v.data.clone()));
            let view = |part: Direction<'static, f64>| match part {
                Direction::Matrix(part) => part,
                Direction::LowRank { .. } => unreachable!("parts are matrices"),
            };
            parts.into_iter().map(view).collect()
        };
        for gradient in [other.low_rank(0.25), net.parts(&u.data)] {
            let (one, two) = (parts(&d), parts(&previous));
            let model = QuadraticModel::new_alloc(&net.batch(), &gradient, &one, Some(&two), par).expect("valid");
            let expected =
                [form(&curvature, &d, &d), form(&curvature, &d, &previous), form(&curvature, &previous, &previous)];
            assert_eq!(model.curvatures, expected, "{par:?}");
            assert_eq!(model.products, [dot(&d, &d), dot(&d, &previous), dot(&previous, &previous)]);
            assert_eq!(model.slopes, [dot(&u, &d), dot(&u, &previous)]);
            let alone = QuadraticModel::new_alloc(&net.batch(), &gradient, &one, None, par).expect("valid");
            assert_eq!((alone.curvatures[0], alone.slopes), (expected[0], [model.slopes[0], 0.0]));

            let c = 0.5;
            let [a, b, e] = [0, 1, 2].map(|k| model.curvatures[k] + c * model.products[k]);
            let ModelStep { alpha, mu, change } = model.step_with_momentum(c).expect("finite");
            let magnitude = [a * alpha.abs() + b.abs() * mu.abs(), b.abs() * alpha.abs() + (b * b / a + e) * mu.abs()];
            let residual = [a * alpha + b * mu + model.slopes[0], b * alpha + e * mu + model.slopes[1]];
            for k in 0..2 {
                let bound = 2.0 * F64.gamma(8) * (magnitude[k] + model.slopes[k].abs());
                assert!(residual[k].abs() <= bound, "{par:?}: equation {k}: {:e}, bound {bound:e}", residual[k]);
            }
            assert_eq!(change, model.change(alpha, mu, c));
            let one = model.step(c).expect("finite");
            assert_eq!((one.alpha, one.mu), (-model.slopes[0] / a, 0.0));
            assert!(change < one.change && one.change < 0.0, "{change}, {}", one.change);
            // A direction twice, and none: one of them decides.
            let twice =
                QuadraticModel::new_alloc(&net.batch(), &gradient, &parts(&d), Some(&parts(&d)), par).expect("valid");
            assert_eq!(twice.step_with_momentum(c), Ok(one));
            let zero = parts(&Dense::zeros(p, 1));
            let still = QuadraticModel::new_alloc(&net.batch(), &gradient, &zero, Some(&zero), par).expect("valid");
            assert_eq!(still.step_with_momentum(c), Ok(ModelStep { alpha: 0.0, mu: 0.0, change: 0.0 }));
        }
    }
}

/// The scratch that is asked for is enough, and one byte less is refused.
#[test]
fn scratch_of_the_model() {
    let kinds = [Kind::dense(3, 2), Kind::dense(2, 4)];
    let net = Network::<f64>::new(&kinds, 4, 1, integers(86, 3));
    let weights = vec![1.0; net.weights()];
    let parts = net.parts(&weights);
    let direction: Vec<_> = parts
        .iter()
        .map(|part| match part {
            Direction::Matrix(part) => *part,
            Direction::LowRank { .. } => unreachable!("parts are matrices"),
        })
        .collect();
    for gradient in [net.low_rank(0.25), net.parts(&weights)] {
        let model = |stack: &mut MemStack| {
            QuadraticModel::new(&net.batch(), &gradient, &direction, Some(&direction), Par::seq(), stack)
        };
        let expected = QuadraticModel::new_alloc(&net.batch(), &gradient, &direction, Some(&direction), Par::seq())
            .expect("valid");
        asks_for_enough(QuadraticModel::scratch(&net.batch(), &gradient, Par::seq()), &expected, model);
    }
}

/// `delta = alpha D + mu delta_prev` of any method, as [`QuadraticModel`] says.
fn follows_the_model<P: Preconditioner<f64>>(make: impl Fn(&[Layer], StepOptions) -> Optimizer<f64, P>) {
    let layers = vec![Layer::dense(4, 3).expect("sizes").with_bias(), Layer::dense(3, 2).expect("sizes")];
    let step = StepOptions { momentum: 0.5, ..StepOptions::default() };
    let mut optimizer = make(&layers, step);
    let mut random = Random::new(84);
    let seen = Batch::<f64>::random(&mut random, &layers, 6);
    optimizer.observe(&seen.observations()).expect("finite");
    optimizer.refresh().expect("definite");
    let mut weights = zeros::<f64>(&layers);
    let mut previous: Vec<Dense> = weights.iter().map(Owned::dense).collect();
    for t in 0..3 {
        let batch = Batch::<f64>::random(&mut random, &layers, 5);
        let model_batch: Vec<_> = layers
            .iter()
            .zip(&batch.0)
            .map(|(layer, [x, e])| LayerBatch::new(layer, x.view(), e.view()).expect("a batch"))
            .collect();
        let before: Vec<Dense> = weights.iter().map(Owned::dense).collect();
        let d = preconditioned(&mut optimizer, &batch.gradients());
        let gradients: Vec<_> = model_batch.iter().map(|&batch| Direction::LowRank { batch, scale: 0.2 }).collect();
        let owned = |of: &[Dense]| of.iter().map(Owned::<f64>::new).collect::<Vec<_>>();
        let (one, two) = (owned(&d), owned(&previous));
        let [one, two] = [&one, &two].map(|of| of.iter().map(Owned::view).collect::<Vec<_>>());
        let model = QuadraticModel::new_alloc(&model_batch, &gradients, &one, Some(&two), Par::seq()).expect("valid");
        let expected = model.step_with_momentum(optimizer.damping() + 0.125).expect("finite");
        let got = optimizer
            .step_by_model(&mut views(&mut weights), &batch.gradients(), &[], &model_batch, 0.125)
            .expect("a step");
        assert_eq!(got, expected, "{}, step {t}", P::NAME);
        assert!(got.change < 0.0 && (t == 0) == (got.mu == 0.0));
        for (l, (w, before)) in weights.iter().zip(&before).enumerate() {
            let delta =
                Dense::from_fn(d[l].rows, d[l].cols, |i, j| got.alpha * d[l][(i, j)] + got.mu * previous[l][(i, j)]);
            let bound = delta.zip(before, |d, w| F64.gamma(4) * (d.abs() + w.abs()));
            let magnitude = d[l].scaled(got.alpha).abs().plus(&previous[l].scaled(got.mu).abs()).scaled(F64.gamma(4));
            foof_oracle::compare::assert_within(&w.dense(), &before.plus(&delta), &bound.plus(&magnitude), P::NAME);
            previous[l] = delta;
        }
        // What the optimiser keeps is its own rounding of the change.
        let entries = optimizer.save().expect("a file");
        let file = safetensors::SafeTensors::deserialize(&entries).expect("a file");
        for (l, previous) in previous.iter_mut().enumerate() {
            let tensor = file.tensor(&format!("layer.{l}.momentum")).expect("an entry");
            let values = tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")));
            *previous = Dense::from_slice(previous.rows, previous.cols, &values.collect::<Vec<_>>());
        }
    }
    let error = optimizer.step_by_model(&mut views(&mut weights), &seen.gradients(), &[], &[], 0.0).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "batch", .. }), "{error}");
}

#[test]
fn every_method_steps_by_the_model() {
    follows_the_model(|layers, step| {
        Foof::new(layers, FoofOptions { step, schedule: never(), ..Default::default() }, Par::seq()).expect("valid")
    });
    follows_the_model(|layers, step| {
        Kfac::new(layers, KfacOptions { step, schedule: never(), ..Default::default() }, Par::seq()).expect("valid")
    });
    follows_the_model(|layers, step| {
        let options = NaturalGradientOptions { step, schedule: never(), ..NaturalGradientOptions::new(6) };
        NaturalGradient::new(layers, options, Par::seq()).expect("valid")
    });
}

/// With the model's own natural gradient the least is the whole step: `D = (F + lambda I)^-1 u` gives `alpha = -1`, up to the rounding of `D`, whose
/// residual `r` moves `alpha` by `|D| |r| / (D . (F + lambda I) D)`.
#[test]
fn the_models_own_natural_gradient_is_a_whole_step() {
    let layers = vec![Layer::dense(4, 3).expect("sizes")];
    let batch = Batch::<f64>::random(&mut Random::new(85), &layers, 5);
    let options = NaturalGradientOptions { damping: 0.5, ..NaturalGradientOptions::new(5) };
    let mut optimizer = NaturalGradient::<f64>::new(&layers, options, Par::seq()).expect("valid options");
    optimizer.observe(&batch.observations()).expect("finite");
    optimizer.refresh().expect("definite");
    let d = preconditioned(&mut optimizer, &batch.gradients()).remove(0);
    let [x, e] = &batch.0[0];
    let g = fisher::gradients(&fisher::datapoints(&x.dense(), 1), &fisher::datapoints(&e.dense(), 1));
    let u = e.dense().transpose().matmul(&x.dense()).scaled(0.2);
    let damped = fisher::fisher(&g, 5).damped(0.5);
    let applied = damped.matmul(&d.vec());
    let curvature = dot(&d.vec(), &applied);
    let seen = optimizer.preconditioner().used_batch().expect("in use");
    let view = MatRef::new(&d.data, [3, 4]).expect("a view");
    let gradient = [Direction::Matrix(MatRef::new(&u.data, [3, 4]).expect("a view"))];
    let model = QuadraticModel::new_alloc(&seen, &gradient, &[view], None, Par::seq()).expect("valid");
    let step = model.step(0.5).expect("finite");
    let residual =
        applied.minus(&u.vec()).frobenius() + F64.gamma(40) * (damped.frobenius() * d.frobenius() + u.frobenius());
    let bound = 2.0 * d.frobenius() * residual / curvature
        + F64.gamma(40) * damped.frobenius() * d.frobenius().powi(2) / curvature;
    assert!((step.alpha + 1.0).abs() <= bound, "{}, bound {bound:e}", step.alpha);
    assert!(bound < 1.0, "the bound tells a whole step from none: {bound:e}");
}

#[test]
fn damping_follows_the_reduction_ratio() {
    let rule = LevenbergMarquardt::default();
    let omega = 0.95f64.powf(5.0);
    assert_eq!((1..=10).filter(|&t| rule.is_due(t)).collect::<Vec<_>>(), [5, 10]);
    for (ratio, expected) in
        [(0.8, omega), (0.75, 1.0), (0.5, 1.0), (0.25, 1.0), (0.2, 1.0 / omega), (-3.0, 1.0 / omega)]
    {
        assert_eq!(rule.adjusted(2.0, ratio), Ok(2.0 * expected), "ratio {ratio}");
    }
    assert_eq!(rule.adjusted(1e-12, 1.0), Ok(1e-12), "the least");
    assert_eq!(reduction_ratio(5.0, 4.0, -2.0), Ok(0.5));
    let parameter = |error: Error, expected: &str| {
        assert!(matches!(error, Error::Parameter { name, .. } if name == expected), "{error}")
    };
    parameter(reduction_ratio(f64::NAN, 1.0, -1.0).unwrap_err(), "before");
    parameter(reduction_ratio(1.0, f64::INFINITY, -1.0).unwrap_err(), "after");
    parameter(reduction_ratio(1.0, 1.0, 0.0).unwrap_err(), "predicted");
    parameter(rule.adjusted(0.0, 1.0).unwrap_err(), "damping");
    parameter(rule.adjusted(1.0, f64::NAN).unwrap_err(), "ratio");
    parameter(LevenbergMarquardt { base: 1.0, ..rule }.adjusted(1.0, 1.0).unwrap_err(), "base");
    let layers = [Layer::dense(2, 2).expect("sizes")];
    let mut foof = Foof::<f32>::new(&layers, FoofOptions::default(), Par::seq()).expect("valid options");
    parameter(foof.set_damping(0.0).unwrap_err(), "damping");
    foof.set_damping(0.5).expect("positive");
    assert_eq!(foof.damping(), 0.5);
}
