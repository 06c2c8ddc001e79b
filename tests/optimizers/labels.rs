//! All labels of a datapoint (the full Fisher information): several rows of errors for each row of inputs, scaled by `sqrt(p_c)`.

use crate::batch::{Owned, averaged_moments, entry, exact_damping, never, preconditioned};
use foof::covariance::{FactorOptions, error_factor_alloc};
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{Ekfac, EkfacOptions, Kfac, KfacDamping, KfacOptions, Observation};
use foof::{Element, MatMut, Par, Sharing, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_close, assert_within};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random, fisher, rounded};
use proptest::prelude::*;

/// The golden `logistic` network, one dense layer, with the errors of all its labels.
struct Logistic {
    case: Case,
    x: Owned<f64>,
    e: Owned<f64>,
    u: Owned<f64>,
}

impl Logistic {
    fn load() -> Self {
        let case = Case::load("logistic");
        let [x, e, u] = ["input.0", "error_full.0", "gradient.0"].map(|name| Owned::new(&case.golden.matrix(name)));
        Logistic { case, x, e, u }
    }

    /// The first `n` datapoints with all their labels.
    fn first(&self, n: usize) -> [Owned<f64>; 2] {
        let rows = |m: &Owned<f64>, count: usize| Owned::new(&m.dense().block(0..count, 0..m.shape[1]));
        [rows(&self.x, n), rows(&self.e, n * self.e.shape[0] / self.x.shape[0])]
    }

    fn layer(&self) -> Layer {
        Layer::dense(self.x.shape[1], self.e.shape[1]).expect("sizes")
    }
}

fn lower_of(m: &Approx) -> Approx {
    Approx { value: m.value.lower(), ..m.clone() }
}

/// K-FAC's error factor is a mean over datapoints, not rows; the step is that of the dense solves.
#[test]
fn all_labels_in_kfac() {
    let golden = Logistic::load();
    let (lambda, n) = (golden.case.lambda, golden.x.shape[0]);
    let exact = |m: &Owned<f64>| Approx::exact_f64(m.dense());
    let (u, a) = (exact(&golden.u), rounded::second_moment(&exact(&golden.x), n));
    let b = rounded::second_moment(&exact(&golden.e), n);
    for par in isas() {
        let options = KfacOptions { damping: lambda, factor_decay: 0.0, schedule: never(), ..Default::default() };
        let mut optimizer = Kfac::<f64>::new(&[golden.layer()], options, par).expect("valid options");
        let seen = Observation::new(golden.x.view()).with_errors(golden.e.view());
        optimizer.observe(&[seen]).expect("finite");
        lower_of(&b).assert_matches(&entry(&optimizer, "layer.0.error.running").lower(), &format!("{par:?}: B"));
        lower_of(&a).assert_matches(&entry(&optimizer, "layer.0.input.running").lower(), &format!("{par:?}: A"));
        optimizer.refresh().expect("positive definite");
        let got = &preconditioned(&mut optimizer, &[Gradient::Matrix(golden.u.view())])[0];
        let derived = rounded::kfac_heuristic_step(&u, &a, &b, lambda);
        derived.assert_matches(got, &format!("{par:?}: K-FAC"));
    }
}

/// For one datapoint `F = B ⊗ A` with all labels in `B`: K-FAC with exact damping is the natural gradient of the Fisher information
/// that is built of the labels' gradients.
#[test]
fn all_labels_of_one_datapoint_give_the_natural_gradient() {
    let golden = Logistic::load();
    let (lambda, [x, e]) = (golden.case.lambda, golden.first(1));
    let exact = |m: &Owned<f64>| Approx::exact_f64(m.dense());
    let (u, a, b) = (exact(&golden.u), rounded::second_moment(&exact(&x), 1), rounded::second_moment(&exact(&e), 1));
    let rows = golden.case.layer_gradients("input", "error_full", 0);
    let g = Approx { value: rows.value.block(0..e.shape[0], 0..rows.value.cols), ..rows };
    let size = u.value.data.len();
    let natural = rounded::natural_gradient(&rounded::second_moment(&g, 1), &u.unvec(size, 1), lambda);
    let natural = natural.unvec(u.value.rows, u.value.cols);
    let (damping_rule, schedule) = (KfacDamping::Exact, never());
    let options = KfacOptions { damping: lambda, damping_rule, factor_decay: 0.0, schedule, ..Default::default() };
    let mut optimizer = Kfac::<f64>::new(&[golden.layer()], options, Par::seq()).expect("valid options");
    optimizer.observe(&[Observation::new(x.view()).with_errors(e.view())]).expect("finite");
    optimizer.refresh().expect("converges");
    let got = &preconditioned(&mut optimizer, &[Gradient::Matrix(golden.u.view())])[0];
    let derived = exact_damping(&optimizer, [&u, &a, &b], lambda);
    derived.assert_matches(got, "K-FAC");
    assert_close(got, &natural.value, natural.error + derived.error, "natural gradient");
    let relative = (natural.error + derived.error) / natural.value.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "tolerance {relative:e}");
}

/// EK-FAC's moments are the diagonal of the Fisher information in the eigenbasis, `diag(Q^T F Q)` with `Q = Q_B ⊗ Q_A`, averaged once
/// for each mini-batch however many labels it has.
#[test]
fn all_labels_in_ekfac() {
    let golden = Logistic::load();
    let (m, n) = (0.5, 10);
    let [x, e] = golden.first(n);
    let rows = golden.case.layer_gradients("input", "error_full", 0);
    let g = Approx { value: rows.value.block(0..e.shape[0], 0..rows.value.cols), ..rows };
    let fisher_matrix = rounded::second_moment(&g, n);
    let options =
        EkfacOptions { damping: golden.case.lambda, factor_decay: m, schedule: never(), ..Default::default() };
    let mut optimizer = Ekfac::<f64>::new(&[golden.layer()], options, Par::seq()).expect("valid options");
    let seen = [Observation::new(x.view()).with_errors(e.view())];
    optimizer.observe(&seen).expect("finite");
    optimizer.refresh().expect("converges");
    let named = |optimizer: &Ekfac<f64>, name: &str| Approx::exact_f64(entry(optimizer, &format!("layer.0.{name}")));
    let [q_a, q_b] = ["input.used", "error.used"].map(|name| named(&optimizer, name));
    let old = named(&optimizer, "moments");
    optimizer.observe(&seen).expect("finite");
    let got = entry(&optimizer, "layer.0.moments");
    let q = q_b.kron(&q_a);
    let turned = q.transpose().matmul(&fisher_matrix).matmul(&q);
    let diagonal = Dense::from_slice(old.value.rows, old.value.cols, &turned.value.diag());
    let by_fisher = rounded::moving_average(&old, &Approx::exact_f64(diagonal).with_error(turned.error), m);
    let (x, e) = (fisher::datapoints(&x.dense(), 1), fisher::datapoints(&e.dense(), 1));
    let derived = averaged_moments(&old, (&x, &e), [&q_a, &q_b], m);
    derived.assert_matches(&got, "moments");
    assert_close(&got, &by_fisher.value, by_fisher.error + derived.error, "moments of the Fisher information");
    let relative = (by_fisher.error + derived.error) / got.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "tolerance {relative:e}");
}

/// `B` of `C` rows for each datapoint, by the covariance's own function and by the optimisers, with shared weights and both settings.
fn labels_within_bound<T: Element>([n, labels, t, o]: [usize; 4], sharing: Sharing, seed: u64) {
    let mut random = Random::new(seed);
    let format = Format::of::<T>();
    let i = 3;
    let e = random.normals(n * labels * t, o).rounded::<T>();
    let x = random.normals(n * t, i).rounded::<T>();
    let batch = fisher::datapoints(&e, t);
    let oracle_sharing = match sharing {
        Sharing::Expand => fisher::Sharing::Expand,
        Sharing::Reduce => fisher::Sharing::Reduce,
    };
    let expected = fisher::error_factor(&batch, oracle_sharing).scaled(labels as f64);
    let absolute: Vec<Dense> = batch.iter().map(Dense::abs).collect();
    let magnitude = fisher::error_factor(&absolute, oracle_sharing).scaled(labels as f64);
    // All terms in any order, the sums over positions on both sides, and the scale: rounded, and multiplied.
    let depth = n * labels * t + 2 * t + 3;
    let bound = magnitude.scaled(format.gamma(depth) + F64.gamma(depth));
    let bound = bound.map(|b| b + depth as f64 * format.tiny);
    let (e, x) = (Owned::<T>::new(&e), Owned::<T>::new(&x));
    for par in isas() {
        let what = format!("{par:?}: {n} datapoints, {labels} labels, {t} positions, {sharing:?}");
        let options = FactorOptions { sharing, rows_per_datapoint: labels, ..Default::default() };
        let view = View::new(&e.data, [n * labels, t, o]).expect("a view");
        let mut out = vec![T::from_f64(f64::NAN); o * o];
        error_factor_alloc(MatMut::new(&mut out, [o, o]).expect("a view"), view, &options, par).expect("finite");
        let b = Dense::from_slice(o, o, &out);
        assert_within(&b, &expected, &bound, &what);
        assert!(b.is_symmetric(), "{what}: symmetric to the bit");
        let layer = Layer::dense(i, o).expect("sizes").with_positions(t).expect("positions").with_sharing(sharing);
        let options = KfacOptions { factor_decay: 0.0, schedule: never(), ..Default::default() };
        let mut kfac = Kfac::<T>::new(&[layer], options, par).expect("valid options");
        kfac.observe(&[Observation::new(x.view()).with_errors(e.view())]).expect("finite");
        assert_within(&entry(&kfac, "layer.0.error.running").lower(), &expected.lower(), &bound, &what);
        ekfac_of_labels(layer, [&x, &e], t, par, &what);
    }
}

fn ekfac_of_labels<T: Element>(layer: Layer, [x, e]: [&Owned<T>; 2], t: usize, par: Par, what: &str) {
    let m = 0.5;
    let options = EkfacOptions { factor_decay: m, schedule: never(), ..Default::default() };
    let mut ekfac = Ekfac::<T>::new(&[layer], options, par).expect("valid options");
    let seen = [Observation::new(x.view()).with_errors(e.view())];
    ekfac.observe(&seen).expect("finite");
    ekfac.refresh().expect("converges");
    let named = |name: &str| Approx::exact(entry(&ekfac, &format!("layer.0.{name}")), Format::of::<T>());
    let [q_a, q_b, old] = ["input.used", "error.used", "moments"].map(named);
    ekfac.observe(&seen).expect("finite");
    let (x, e) = (fisher::datapoints(&x.dense(), t), fisher::datapoints(&e.dense(), t));
    let derived = averaged_moments(&old, (&x, &e), [&q_a, &q_b], m);
    derived.assert_matches(&entry(&ekfac, "layer.0.moments"), &format!("{what}: moments"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn all_labels_with_shared_weights(
        sizes in [1usize..8, 1..6, 1..4, 1..20],
        sharing in prop::sample::select(vec![Sharing::Expand, Sharing::Reduce]),
        seed: u64,
    ) {
        labels_within_bound::<f32>(sizes, sharing, seed);
        labels_within_bound::<f64>(sizes, sharing, seed);
    }
}
