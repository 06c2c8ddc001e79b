//! Mini-batches of any size: each gives what an optimiser made for its size gives, bit for bit, from systems of its size.

use crate::batch::{Owned, preconditioned, views, zeros};
use crate::flat;
use crate::network::{Kind, Network, Seen, integers};
use foof::convolution::FeatureOrder;
use foof::fisher::fisher_vector_product_alloc;
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{
    FisherBlocks, NaturalGradient, NaturalGradientOptions, Observation, Order, Preconditioner, Schedule, StepOptions,
};
use foof::woodbury::{Refinement, SystemPrecision};
use foof::{Bias, Blend, Error, Par};
use foof_oracle::Dense;
use foof_oracle::compare::{assert_exact, assert_same_bits};

/// From small to large and back: memory grows and is then used in part.
const SIZES: [usize; 7] = [4, 16, 1, 16, 7, 4, 25];

/// What the optimiser under test is made for.
const EXPECTED: usize = 9;

fn kinds() -> [Kind; 3] {
    [
        Kind::Conv {
            c: 2,
            o: 2,
            h: 3,
            w: 4,
            kernel: 3,
            stride: 2,
            groups: 2,
            bias: Bias::With,
            order: FeatureOrder::TapsChannel,
        },
        Kind::Dense { i: 3, o: 2, t: 3, bias: Bias::With },
        Kind::dense(3, 2),
    ]
}

fn network(seed: u64, n: usize, labels: usize) -> Network<f64> {
    Network::new(&kinds(), n, labels, integers(seed, 3))
}

fn layers(of: &Network<f64>) -> Vec<Layer> {
    of.layers.iter().map(|seen| seen.layer).collect()
}

fn observations(of: &Network<f64>) -> Vec<Observation<'_, f64>> {
    of.layers.iter().map(Seen::observation).collect()
}

fn gradients(layers: &[Layer], seed: u64) -> Vec<Owned<f64>> {
    let gradient = |layer: &Layer| Owned::new(&integers(seed, 2)(layer.weight_shape()[0], layer.weight_shape()[1]));
    layers.iter().map(gradient).collect()
}

fn matrices(of: &[Owned<f64>]) -> Vec<Gradient<'_, f64>> {
    of.iter().map(|u| Gradient::Matrix(u.view())).collect()
}

/// Every combination of the options that say how systems are made.
fn each_system(mut f: impl FnMut(NaturalGradientOptions, &str)) {
    for labels in [1, 2] {
        for blocks in [FisherBlocks::Whole, FisherBlocks::Diagonal] {
            for (precision, refinement) in
                [(SystemPrecision::Working, Refinement::None), (SystemPrecision::Double, Refinement::Once)]
            {
                let options = NaturalGradientOptions {
                    labels,
                    blocks,
                    precision,
                    refinement,
                    ..NaturalGradientOptions::new(EXPECTED)
                };
                f(options, &format!("{labels} labels, {blocks:?}, {precision:?}, {refinement:?}"));
            }
        }
    }
}

fn make(layers: &[Layer], options: NaturalGradientOptions) -> NaturalGradient<f64> {
    NaturalGradient::new(layers, options, Par::seq()).expect("valid options")
}

/// One that was made for the size of this mini-batch, and saw nothing else.
fn made_for(batch: &Network<f64>, n: usize, options: NaturalGradientOptions) -> NaturalGradient<f64> {
    let mut optimizer = make(&layers(batch), NaturalGradientOptions { fisher_batch: n, ..options });
    optimizer.observe(&observations(batch)).expect("finite");
    optimizer.refresh().expect("definite");
    optimizer
}

fn assert_same_state(one: &NaturalGradient<f64>, two: &NaturalGradient<f64>, what: &str) {
    let [one, two] = [one, two].map(|optimizer| optimizer.preconditioner().entries());
    assert_eq!(one.len(), two.len(), "{what}");
    for ((name, shape, got), (other, expected_shape, expected)) in one.iter().zip(&two) {
        assert_eq!((name, shape), (other, expected_shape), "{what}");
        assert_same_bits(got, expected, &format!("{what}: {name}"));
    }
}

/// Mini-batch, systems and steps have the bits of those of an optimiser made for the size, and the Fisher matrix is the mean over the
/// mini-batch's own datapoints: exact, on integers, where `N` has an exact root.
#[test]
fn each_size_is_as_if_made_for_it() {
    each_system(|options, what| {
        let mut optimizer = make(&layers(&network(1, 1, options.labels)), options);
        for (seed, n) in (2..).zip(SIZES) {
            let (batch, what) = (network(seed, n, options.labels), format!("{what}, {n} datapoints"));
            let layers = layers(&batch);
            optimizer.observe(&observations(&batch)).expect("finite");
            optimizer.refresh().expect("definite");
            let mut fresh = made_for(&batch, n, options);
            assert_same_state(&optimizer, &fresh, &what);
            let u = gradients(&layers, seed + 100);
            let [got, expected] = [&mut optimizer, &mut fresh].map(|o| flat(&preconditioned(o, &matrices(&u))));
            assert_same_bits(&got.data, &expected.data, &what);

            let used = optimizer.preconditioner().used_batch().expect("in use");
            assert!(used.iter().all(|layer| layer.datapoints() == n), "{what}");
            if [1, 4, 16].contains(&n) {
                let (g, v) = (batch.gradients(), integers(3, 2)(batch.weights(), 1));
                let mut out = vec![f64::NAN; v.data.len()];
                let (mut parts, directions) = (batch.parts_mut(&mut out), batch.parts(&v.data));
                fisher_vector_product_alloc(&mut parts, Blend::set(1.0), &used, &directions, Par::seq())
                    .expect("valid");
                let product = g.transpose().matmul(&g.matmul(&v)).scaled(1.0 / n as f64);
                assert_exact(&Dense::from_slice(out.len(), 1, &out), &product, &what);
            }
        }
    });
}

/// Steps of a schedule, each with a mini-batch of another size: what is in use is that of this step, or of the one before.
#[test]
fn steps_of_changing_sizes() {
    each_system(|options, what| {
        for order in [Order::RefreshFirst, Order::StepFirst] {
            let schedule = Schedule { order, ..options.schedule };
            let step = StepOptions { learning_rate: 1.0, ..StepOptions::default() };
            let options = NaturalGradientOptions { schedule, step, ..options };
            let batches: Vec<_> = (2..).zip(SIZES).map(|(seed, n)| network(seed, n, options.labels)).collect();
            let layers = layers(&batches[0]);
            let mut optimizer = make(&layers, options);
            optimizer.observe(&observations(&batches[0])).expect("finite");
            optimizer.refresh().expect("definite");
            for t in 1..SIZES.len() {
                let u = gradients(&layers, t as u64);
                let mut weights = zeros::<f64>(&layers);
                let seen = observations(&batches[t]);
                optimizer.step(&mut views(&mut weights), &matrices(&u), &seen).expect("a step");
                let of = if order == Order::RefreshFirst { t } else { t - 1 };
                let d = flat(&preconditioned(&mut made_for(&batches[of], SIZES[of], options), &matrices(&u)));
                let got: Vec<Dense> = weights.iter().map(|w| w.dense()).collect();
                assert_same_bits(&flat(&got).data, &d.map(|d| 0.0 - d).data, &format!("{what}, {order:?}, step {t}"));
            }
        }
    });
}

/// A state is resumed by an optimiser that expects another size, and what is cut short is not.
#[test]
fn a_state_keeps_its_size() {
    each_system(|options, what| {
        // In use is a mini-batch of 7, and observed one of 16.
        let (seven, sixteen) = (network(2, 7, options.labels), network(3, 16, options.labels));
        let layers = layers(&seven);
        let mut one = made_for(&seven, 7, options);
        one.observe(&observations(&sixteen)).expect("finite");
        let saved = one.save().expect("a file");
        for fisher_batch in [1, 7, 40] {
            let mut other = make(&layers, NaturalGradientOptions { fisher_batch, ..options });
            other.observe(&observations(&network(4, 5, options.labels))).expect("finite");
            other.refresh().expect("definite");
            let before = other.save().expect("a file");
            let error = other.load(&saved[..saved.len() - 1]).expect_err("truncated");
            assert!(matches!(error, Error::State { .. }), "{what}: {error}");
            let mut damaged = saved.clone();
            *damaged.last_mut().expect("bytes") ^= 1;
            let error = other.load(&damaged).expect_err("another number");
            assert!(matches!(error, Error::State { .. }), "{what}: {error}");
            assert!(other.save().expect("a file") == before, "{what}: the state as it was");
            other.load(&saved).expect("the same method");
            assert!(other.save().expect("a file") == saved, "{what}: the same bytes");
            let u = gradients(&layers, 5);
            let [got, expected] = [&mut other, &mut one].map(|o| flat(&preconditioned(o, &matrices(&u))));
            assert_same_bits(&got.data, &expected.data, what);
            other.refresh().expect("definite");
            let expected = preconditioned(&mut made_for(&sixteen, 16, options), &matrices(&u));
            assert_same_bits(&flat(&preconditioned(&mut other, &matrices(&u))).data, &flat(&expected).data, what);
        }
    });
}
