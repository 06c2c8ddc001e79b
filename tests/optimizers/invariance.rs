//! What must not matter to an optimiser, or must matter in one way: the order of a mini-batch, the number of threads, units.

use crate::batch::{Batch, Owned, dense_layers, never, preconditioned};
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{Ekfac, EkfacOptions, Foof, FoofOptions, Kfac, KfacDamping, KfacOptions, Optimizer, Preconditioner};
use foof::{Element, Par};
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

/// Calls `f` with each method's `D` of `gradients` after it has seen `batches`, all but the last before a refresh.
fn each_method<T: Element>(
    layers: &[Layer],
    lambda: f64,
    par: Par,
    batches: &[&Batch<T>],
    gradients: &[Gradient<'_, T>],
    mut f: impl FnMut(&str, Vec<Dense>),
) {
    fn run<T: Element, P: Preconditioner<T>>(
        mut optimizer: Optimizer<T, P>,
        batches: &[&Batch<T>],
        gradients: &[Gradient<'_, T>],
    ) -> Vec<Dense> {
        let (last, first) = batches.split_last().expect("a mini-batch");
        for batch in first {
            optimizer.observe(&batch.observations()).expect("finite");
        }
        if first.is_empty() {
            optimizer.observe(&last.observations()).expect("finite");
        }
        optimizer.refresh().expect("a refresh");
        if !first.is_empty() {
            optimizer.observe(&last.observations()).expect("finite");
        }
        preconditioned(&mut optimizer, gradients)
    }
    let (damping, factor_decay, schedule) = (lambda, 0.5, never());
    let options = FoofOptions { damping, factor_decay, schedule, ..Default::default() };
    f("FOOF", run(Foof::<T>::new(layers, options, par).expect("valid options"), batches, gradients));
    for damping_rule in [KfacDamping::Heuristic, KfacDamping::Exact] {
        let options = KfacOptions { damping, damping_rule, factor_decay, schedule, ..Default::default() };
        let optimizer = Kfac::<T>::new(layers, options, par).expect("valid options");
        f(&format!("K-FAC, {damping_rule:?}"), run(optimizer, batches, gradients));
    }
    let options = EkfacOptions { damping, factor_decay, schedule, ..Default::default() };
    f("EK-FAC", run(Ekfac::<T>::new(layers, options, par).expect("valid options"), batches, gradients));
}

/// What [`each_method`] gives, by method.
fn methods<T: Element>(
    layers: &[Layer],
    lambda: f64,
    par: Par,
    batches: &[&Batch<T>],
    gradients: &[Gradient<'_, T>],
) -> Vec<(String, Vec<Dense>)> {
    let mut all = Vec::new();
    each_method(layers, lambda, par, batches, gradients, |name, d| all.push((name.to_owned(), d)));
    all
}

fn mapped(batch: &Batch<f64>, f: impl Fn(usize, &Dense) -> Dense) -> Batch<f64> {
    Batch(batch.0.iter().map(|pair| [0, 1].map(|side| Owned::new(&f(side, &pair[side].dense())))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The factors of integers are sums that are exact, scaled: the order of the datapoints does not matter by a bit to what is made of
    /// them, with positions and biases.
    #[test]
    fn the_order_of_datapoints_does_not_matter(
        [i, o, n, t] in [1usize..9, 1..9, 1..9, 1..4], bias: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let layer = Layer::dense(i, o).expect("sizes").with_positions(t).expect("positions");
        let layers = [if bias { layer.with_bias() } else { layer }];
        let batch = Batch(vec![[i, o].map(|cols| Owned::<f64>::new(&random.integers(n * t, cols, 4)))]);
        let order = random.permutation(n);
        let other = mapped(&batch, |_, m| Dense::from_fn(n * t, m.cols, |r, j| m[(order[r / t] * t + r % t, j)]));
        let u = Owned::<f64>::new(&random.normals(layers[0].weight_shape()[0], layers[0].weight_shape()[1]));
        for par in isas() {
            let of = |batch| methods(&layers, 0.25, par, &[batch], &[Gradient::Matrix(u.view())]);
            for ((name, one), (_, two)) in of(&batch).iter().zip(of(&other)) {
                assert_exact(&two[0], &one[0], &format!("{par:?}: {name}"));
            }
        }
    }

    /// Inputs in units of `2^p` and errors in units of `2^q`: with damping in its units (`4^p` for FOOF, `4^(p+q)` for K-FAC) the step
    /// changes by a power of two, and by no other bit, roots included.
    #[test]
    fn units_do_not_matter([i, o, n] in [1usize..20, 1..20, 1..30], [p, q] in [-8i32..8, -8..8], seed: u64) {
        let mut random = Random::new(seed);
        let layers = dense_layers(&[[i, o]]);
        let batch = Batch::<f64>::random(&mut random, &layers, n);
        let units = [p, q].map(|power| f64::from(power).exp2());
        let scaled = mapped(&batch, |side, m| m.scaled(units[side]));
        let u = Owned::<f64>::new(&random.normals(o, i));
        let gradients = [Gradient::Matrix(u.view())];
        for par in isas() {
            let of = |batch, lambda| methods(&layers, lambda, par, &[batch], &gradients);
            let plain = of(&batch, 0.25);
            let input = units[0] * units[0];
            let foof = &of(&scaled, 0.25 * input)[0].1[0];
            assert_exact(&foof.scaled(input), &plain[0].1[0], &format!("{par:?}: FOOF"));
            let both = input * units[1] * units[1];
            let kfac = &of(&scaled, 0.25 * both)[1].1[0];
            assert_exact(&kfac.scaled(both), &plain[1].1[0], &format!("{par:?}: K-FAC"));
        }
    }
}

/// Layers large enough to be shared among threads, and a deep batch whose sums are cut into chunks: the bits of all methods.
#[test]
fn the_number_of_threads_does_not_matter() {
    let mut random = Random::new(9);
    for (sizes, n) in [([[161, 130], [130, 20]], 150), ([[40, 24], [24, 9]], 3000)] {
        let layers = dense_layers(&sizes);
        let batches = [0; 2].map(|_| Batch::<f32>::random(&mut random, &layers, n));
        let gradients = batches[1].gradients();
        let results = for_every_par(&format!("{sizes:?}"), |par| {
            let all = methods(&layers, 0.25, par, &[&batches[0], &batches[1]], &gradients);
            all.iter().flat_map(|(_, d)| d).flat_map(Dense::to_vec::<f32>).collect::<Vec<f32>>()
        });
        for (isa, d) in results {
            assert!(!d.is_empty() && d.iter().all(|v| v.is_finite()), "{isa}: {sizes:?}");
        }
    }
}
