//! EK-FAC, exact damping, FOOF matched to K-FAC, cosines: against the dense oracles.

use crate::batch::{
    Batch, Owned, averaged_moments, dense_layers, entry, exact_damping, layer_approx, never, preconditioned,
};
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, Foof, FoofDamping, FoofOptions, FoofScale, Kfac, KfacDamping, KfacOptions, cosine,
};
use foof::{Element, Par};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random, fisher, rounded, steps};
use proptest::prelude::*;

/// EK-FAC: moments restart from `b a^T` at a refresh, then average `mean_n (Q_B^T G_n Q_A)²` in the refresh's basis, for one
/// position and several. The oracle takes the same eigenvectors and eigenvalues.
fn ekfac_against_the_oracle<T: Element>([i, o, n, positions]: [usize; 4], seed: u64) {
    let layer = Layer::dense(i, o).expect("sizes").with_positions(positions).expect("positions");
    let (layers, m, lambda) = (vec![layer], 0.5, 0.25);
    let options = EkfacOptions { damping: lambda, factor_decay: m, schedule: never(), ..Default::default() };
    for par in isas() {
        let mut optimizer = Ekfac::<T>::new(&layers, options, par).expect("valid options");
        let mut random = Random::new(seed);
        let mut batch = || Batch::<T>::random(&mut random, &layers, n);
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
            moments = averaged_moments(&moments, (&x, &e), [&q_a, &q_b], m);
            moments.assert_matches(&entry(&optimizer, "layer.0.moments"), &format!("{what}: moments"));
        }
    }
}

/// K-FAC with exact damping against the dense solve of the Kronecker product.
fn exact_damping_against_the_oracle([i, o, n]: [usize; 3], bias: bool, lambda: f64, seed: u64) {
    let layer = Layer::dense(i, o).expect("sizes");
    let layers = vec![if bias { layer.with_bias() } else { layer }];
    let (damping_rule, schedule) = (KfacDamping::Exact, never());
    let options = KfacOptions { damping: lambda, damping_rule, factor_decay: 0.0, schedule, ..Default::default() };
    for par in isas() {
        let mut optimizer = Kfac::<f64>::new(&layers, options, par).expect("valid options");
        let batch = Batch::<f64>::random(&mut Random::new(seed), &layers, n);
        optimizer.observe(&batch.observations()).expect("finite");
        optimizer.refresh().expect("converges");
        let [u, a, b] = layer_approx(&batch.0[0], bias);
        let derived = exact_damping(&optimizer, [&u, &a, &b], lambda);
        derived.assert_matches(&preconditioned(&mut optimizer, &batch.gradients())[0], &format!("{par:?}"));
    }
}

/// The paper's D.9: FOOF with K-FAC's `lambda_A`, times `lambda_A / lambda`, or with K-FAC's norm.
fn foof_matched_to_kfac_within_bound([i, o, n]: [usize; 3], lambda: f64, seed: u64) {
    let layers = dense_layers(&[[i, o], [o, i]]);
    let batch = Batch::<f64>::random(&mut Random::new(seed), &layers, n);
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
                m.clone().with_error(m.error + moved).damped_inverse(lambda.value)
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn ekfac_moments_and_steps(sizes in [1usize..9, 1..9, 1..9, 1..4], seed: u64) {
        ekfac_against_the_oracle::<f32>(sizes, seed);
        ekfac_against_the_oracle::<f64>(sizes, seed);
    }

    #[test]
    fn exact_damping_is_the_solve_of_the_kronecker_product(
        sizes in [1usize..8, 1..8, 1..12], bias: bool, power in -4i32..3, seed: u64,
    ) {
        exact_damping_against_the_oracle(sizes, bias, f64::from(power).exp2(), seed);
    }

    #[test]
    fn foof_matched_to_kfac(sizes in [1usize..9, 1..9, 1..12], power in -4i32..3, seed: u64) {
        foof_matched_to_kfac_within_bound(sizes, f64::from(power).exp2(), seed);
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
