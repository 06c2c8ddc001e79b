//! The golden convolutional network, unfolded: each convolution is a layer with shared weights, a layer for each group.

use crate::batch::{Owned, averaged_moments, eigen_errors, entry, exact_damping, never, preconditioned};
use foof::covariance::{FactorOptions, error_factor_alloc, input_factor_alloc};
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, Foof, FoofOptions, Kfac, KfacDamping, KfacOptions, Observation, Optimizer, Preconditioner,
};
use foof::{MatMut, Par, Sharing, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_close, assert_within};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, fisher, rounded};

/// One group of one layer.
pub struct Block {
    pub case: Case,
    pub l: usize,
    pub group: usize,
    /// Patches and errors of each datapoint.
    pub x: Vec<Dense>,
    pub e: Vec<Dense>,
    pub u: Dense,
}

impl Block {
    pub fn positions(&self) -> usize {
        self.x[0].rows
    }

    fn layer(&self) -> Layer {
        let layer = Layer::dense(self.x[0].cols, self.e[0].cols).expect("sizes");
        layer.with_positions(self.positions()).expect("positions")
    }

    fn factor(&self, tensor: &str) -> Dense {
        self.case.golden.blocks(&format!("{tensor}.{}", self.l))[self.group].clone()
    }

    fn step(&self, tensor: &str) -> Dense {
        self.case.like_weight(tensor, self.l)[self.group].clone()
    }
}

impl Block {
    pub fn new(l: usize, group: usize) -> Self {
        let case = Case::load("cnn");
        let part = |mut blocks: Vec<Vec<Dense>>| blocks.swap_remove(group);
        let (x, e) = (part(case.inputs("input", l)), part(case.errors("error_mc", l)));
        let u = case.like_weight("gradient", l)[group].clone();
        Block { case, l, group, x, e, u }
    }
}

fn each_block(test: impl Fn(&Block, Par, &str)) {
    let case = Case::load("cnn");
    for l in 0..case.layers.len() {
        for group in 0..case.groups(l) {
            let block = Block::new(l, group);
            for par in isas() {
                test(&block, par, &format!("{par:?}: layer {l}, group {group}"));
            }
        }
    }
}

/// Both factors in both settings. Either evaluation sums `N T` products and scales twice, or `N` products of sums over `T` positions
/// that are scaled too.
#[test]
fn golden_factors_expand_and_reduce() {
    each_block(|block, par, what| {
        let (n, t) = (block.x.len(), block.positions());
        for (rows, input) in [(&block.x, true), (&block.e, false)] {
            let d = rows[0].cols;
            let data = fisher::stacked(rows).data;
            let view = View::new(&data, [n, t, d]).expect("a view");
            let absolute: Vec<Dense> = rows.iter().map(Dense::abs).collect();
            for sharing in [Sharing::Expand, Sharing::Reduce] {
                let options = FactorOptions { sharing, ..Default::default() };
                let mut out = vec![f64::NAN; d * d];
                let to = MatMut::new(&mut out, [d, d]).expect("a view");
                let done = match input {
                    true => input_factor_alloc(to, view, &options, par),
                    false => error_factor_alloc(to, view, &options, par),
                };
                done.expect("finite");
                let (oracle, suffix, depth) = match sharing {
                    Sharing::Expand => (fisher::Sharing::Expand, "", n * t + 2),
                    Sharing::Reduce => (fisher::Sharing::Reduce, "_reduce", n + 2 + 2 * (t + 1)),
                };
                let (magnitude, name) = match input {
                    true => (fisher::input_factor(&absolute, oracle), "factor_input"),
                    false => (fisher::error_factor(&absolute, oracle), "factor_error"),
                };
                let bound = magnitude.scaled(2.0 * F64.gamma(depth));
                let (got, name) = (Dense::from_slice(d, d, &out), format!("{name}{suffix}"));
                assert_within(&got, &block.factor(&name), &bound, &format!("{what}: {name}"));
                assert!(got.is_symmetric(), "{what}: {name}: symmetric to the bit");
            }
        }
    });
}

/// The step of an optimiser that has seen the block's batch.
fn stepped<P: Preconditioner<f64>>(block: &Block, optimizer: &mut Optimizer<f64, P>, refreshed: bool) -> Dense {
    let [x, e] = [&block.x, &block.e].map(|rows| Owned::<f64>::new(&fisher::stacked(rows)));
    optimizer.observe(&[Observation::new(x.view()).with_errors(e.view())]).expect("finite");
    if !refreshed {
        optimizer.refresh().expect("a refresh");
    }
    let u = Owned::<f64>::new(&block.u);
    preconditioned(optimizer, &[Gradient::Matrix(u.view())]).remove(0)
}

/// Ours within the derived error, which is below half the digits of single precision, and so PyTorch's.
#[track_caller]
pub fn check(derived: &Approx, block: &Block, got: &Dense, tensor: &str, what: &str) {
    derived.assert_matches(got, &format!("{what}: {tensor}"));
    derived.assert_matches(&block.step(tensor), &format!("{what}: PyTorch's {tensor}"));
    let relative = derived.error / derived.value.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "{what}: tolerance {relative:e}");
}

#[test]
fn golden_steps() {
    each_block(|block, par, what| {
        let (lambda, schedule, factor_decay) = (block.case.lambda, never(), 0.0);
        let layers = [block.layer()];
        let exact = |rows: &[Dense]| Approx::exact_f64(fisher::stacked(rows));
        let (n, u) = (block.x.len(), Approx::exact_f64(block.u.clone()));
        let (a, b) = (rounded::second_moment(&exact(&block.x), n), exact(&block.e));
        let b = rounded::second_moment(&b, n * block.positions());

        let options = FoofOptions { damping: lambda, factor_decay, schedule, ..Default::default() };
        let mut foof = Foof::new(&layers, options, par).expect("valid options");
        let got = stepped(block, &mut foof, false);
        check(&rounded::foof_step(&u, &a, lambda), block, &got, "foof", what);

        let options = KfacOptions { damping: lambda, factor_decay, schedule, ..Default::default() };
        let mut kfac = Kfac::new(&layers, options, par).expect("valid options");
        let got = stepped(block, &mut kfac, false);
        check(&rounded::kfac_heuristic_step(&u, &a, &b, lambda), block, &got, "kfac_heuristic", what);

        let options = KfacOptions { damping_rule: KfacDamping::Exact, ..options };
        let mut kfac = Kfac::new(&layers, options, par).expect("valid options");
        let got = stepped(block, &mut kfac, false);
        check(&exact_damping(&kfac, [&u, &a, &b], lambda), block, &got, "kfac_exact", what);
    });
}

/// EK-FAC, whose moments of the mini-batch replace what a refresh starts with (`m = 0`). PyTorch's eigenvectors are not stored: ours
/// differ from them by what is not determined, and the moments are evaluated in either order.
#[test]
fn golden_ekfac_steps() {
    each_block(|block, par, what| {
        let (lambda, n) = (block.case.lambda, block.x.len());
        let options = EkfacOptions { damping: lambda, factor_decay: 0.0, schedule: never(), ..Default::default() };
        let mut ekfac = Ekfac::new(&[block.layer()], options, par).expect("valid options");
        stepped(block, &mut ekfac, false);
        let got = stepped(block, &mut ekfac, true);
        let exact = |rows: &[Dense]| Approx::exact_f64(fisher::stacked(rows));
        let u = Approx::exact_f64(block.u.clone());
        // In the eigenvectors that were found.
        let [q_a, q_b] =
            ["input.used", "error.used"].map(|name| Approx::exact_f64(entry(&ekfac, &format!("layer.0.{name}"))));
        let none = Approx::exact_f64(Dense::zeros(block.u.rows, block.u.cols));
        let moments = averaged_moments(&none, (&block.x, &block.e), [&q_a, &q_b], 0.0);
        let divided = q_b.transpose().matmul(&u).matmul(&q_a).divided_by_damped(&moments, lambda);
        let found = q_b.matmul(&divided).matmul(&q_a.transpose());
        found.assert_matches(&got, &format!("{what}: EK-FAC"));
        // In those that are determined.
        let a = rounded::second_moment(&exact(&block.x), n);
        let b = rounded::second_moment(&exact(&block.e), n * block.positions());
        let [q_a, q_b] = [a, b].map(|m| {
            let vectors = rounded::eigenvectors(&m);
            let error = vectors.error + eigen_errors(m.value.rows).0;
            vectors.with_error(error)
        });
        let moved = block.case.input_errors("input")[block.l];
        let g: Vec<Approx> = (block.x.iter().zip(&block.e))
            .map(|(x, e)| Approx::exact_f64(e.transpose()).matmul(&Approx::exact_f64(x.clone()).with_error(moved)))
            .collect();
        let determined = rounded::ekfac_step(&u, &q_a, &q_b, &g, lambda);
        let allowed = 2.0 * determined.error + found.error;
        assert_close(&got, &block.step("ekfac"), allowed, &format!("{what}: PyTorch's EK-FAC"));
        let relative = allowed / got.frobenius();
        assert!(relative < Format::of::<f32>().unit.sqrt(), "{what}: tolerance {relative:e}");
    });
}
