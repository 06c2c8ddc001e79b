//! The optimiser on random networks: forms of gradients and inputs, the life of a factor, what is refused.

use crate::batch::{Batch, Owned, never, preconditioned, views, zeros};
use crate::network::{Kind, Network, Seen, normals};
use crate::{flat, woodbury};
use foof::convolution::FeatureOrder;
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{FisherBlocks, NaturalGradient, NaturalGradientOptions, Observation, Order, Schedule, StepOptions};
use foof::woodbury::{Refinement, SystemPrecision};
use foof::{Bias, Error, Par, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, F64, Format, Solver};
use foof_oracle::compare::{assert_close, assert_same_bits};
use foof_oracle::kernels::for_every_par;
use foof_oracle::{Dense, Random, fisher, steps};
use proptest::prelude::*;

const BLOCKS: [FisherBlocks; 2] = [FisherBlocks::Whole, FisherBlocks::Diagonal];

/// Rows of gradients of the layers of a batch, `[R, P]`, and what `G^T G` may be off by beyond a product of them; as the golden networks'.
fn gradients(layers: &[Layer], batch: &Batch<f64>) -> (Approx, f64) {
    let (mut gram, mut error, mut all) = (0.0, 0.0, Vec::new());
    for (layer, [x, e]) in layers.iter().zip(&batch.0) {
        let t = layer.positions();
        let x = fisher::datapoints(&x.dense(), t);
        let x = if layer.bias() == Bias::With { fisher::with_one(&x) } else { x };
        let magnitude = fisher::stacked(&x).frobenius() * e.dense().frobenius();
        let [o, i] = layer.weight_shape();
        let gamma = F64.gamma(o * i + t * t + o + i + 8);
        gram += gamma * magnitude * magnitude;
        error += gamma * magnitude;
        all.push(fisher::gradients(&x, &fisher::datapoints(&e.dense(), t)));
    }
    (Approx::exact_f64(fisher::concatenated(&all)).with_error(error), gram)
}

/// Each layer's mean gradient as a matrix, with its rounding.
fn means(layers: &[Layer], batch: &Batch<f64>) -> Vec<Approx> {
    let each = |(layer, [x, e]): (&Layer, &[Owned<f64>; 2])| {
        let (x, e) = (Approx::exact_f64(x.dense()), Approx::exact_f64(e.dense()));
        let x = if layer.bias() == Bias::With { x.with_one() } else { x };
        e.transpose().matmul(&x).scaled(1.0 / x.value.rows as f64)
    };
    layers.iter().zip(&batch.0).map(each).collect()
}

fn network(sizes: &[[usize; 2]], positions: usize, bias: bool) -> Vec<Layer> {
    let layer = |&[i, o]: &[usize; 2]| {
        let layer = Layer::dense(i, o).and_then(|layer| layer.with_positions(positions)).expect("sizes");
        if bias { layer.with_bias() } else { layer }
    };
    sizes.iter().map(layer).collect()
}

/// The step is that of Woodbury's identity, whether the gradient of another mini-batch is a matrix or in low rank, and whatever size was expected.
fn against_the_oracle(layers: &[Layer], [n, m, expected]: [usize; 3], lambda: f64, seed: u64) {
    let mut random = Random::new(seed);
    let (seen, other) = (Batch::random(&mut random, layers, n), Batch::random(&mut random, layers, m));
    let u = means(layers, &other);
    let matrices: Vec<Owned<f64>> = u.iter().map(|u| Owned::new(&u.value)).collect();
    let matrices: Vec<_> = matrices.iter().map(|u| Gradient::Matrix(u.view())).collect();
    for blocks in BLOCKS {
        let options = NaturalGradientOptions { damping: lambda, blocks, ..NaturalGradientOptions::new(expected) };
        let mut optimizer = NaturalGradient::<f64>::new(layers, options, Par::seq()).expect("valid options");
        optimizer.observe(&seen.observations()).expect("finite");
        optimizer.refresh().expect("definite");
        let ranges: Vec<core::ops::Range<usize>> = match blocks {
            FisherBlocks::Whole => core::iter::once(0..layers.len()).collect(),
            FisherBlocks::Diagonal => (0..layers.len()).map(|l| l..l + 1).collect(),
        };
        for (form, gradients_given) in [("matrices", &matrices), ("low rank", &other.gradients())] {
            let got = preconditioned(&mut optimizer, gradients_given);
            for range in &ranges {
                let (g, gram) = gradients(&layers[range.clone()], &Batch(copies(&seen.0[range.clone()])));
                let values: Vec<Dense> = u[range.clone()].iter().map(|u| u.value.clone()).collect();
                let error = u[range.clone()].iter().map(|u| u.error).sum();
                let u = Approx::exact_f64(flat(&values)).with_error(error);
                let derived = woodbury(&g, n, &u, lambda, gram);
                derived.assert_matches(&flat(&got[range.clone()]), &format!("{blocks:?}, {form}, {range:?}"));
            }
        }
    }
}

fn copies(layers: &[[Owned<f64>; 2]]) -> Vec<[Owned<f64>; 2]> {
    layers.iter().map(|pair| [0, 1].map(|k| Owned::new(&pair[k].dense()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn steps_of_random_networks(
        sizes in prop::collection::vec([1usize..7, 1..7], 1..4), [n, m, expected] in [1usize..20, 1..6, 1..20], positions in 1usize..4, bias: bool,
        power in -6i32..4, seed: u64,
    ) {
        // The damping relative to `|G|²`, some hundreds here: a bound of a smaller one says nothing.
        against_the_oracle(&network(&sizes, positions, bias), [n, m, expected], 10f64.powi(power.max(-2)) * 10.0, seed);
    }
}

/// One problem for each system, solved in all precisions, refined and not.
struct Precise {
    systems: Vec<Network<f32>>,
    blocks: FisherBlocks,
    n: usize,
    lambda: f64,
}

impl Precise {
    fn new(blocks: FisherBlocks, seed: u64, lambda: f64) -> Self {
        let kinds = [
            Kind::Conv {
                c: 2,
                o: 4,
                h: 3,
                w: 3,
                kernel: 3,
                stride: 2,
                groups: 2,
                bias: Bias::With,
                order: FeatureOrder::ChannelTaps,
            },
            Kind::Dense { i: 4, o: 3, t: 2, bias: Bias::With },
            Kind::dense(5, 4),
        ];
        let (n, mut draw) = (6, normals(seed));
        let systems = match blocks {
            FisherBlocks::Whole => vec![Network::new(&kinds, n, 1, &mut draw)],
            FisherBlocks::Diagonal => kinds.iter().map(|&kind| Network::new(&[kind], n, 1, &mut draw)).collect(),
        };
        Precise { systems, blocks, n, lambda }
    }

    /// For each system the distance from the exact answer and its bound; `u` lies in the range of `G`, so that most of `u - G w` cancels.
    fn errors(&self, precision: SystemPrecision, refinement: Refinement) -> Vec<(f64, Option<f64>)> {
        let seen = || self.systems.iter().flat_map(|system| &system.layers);
        let layers: Vec<Layer> = seen().map(|seen| seen.layer).collect();
        let observations: Vec<Observation<'_, f32>> = seen().map(Seen::observation).collect();
        let (damping, blocks) = (self.lambda, self.blocks);
        let options =
            NaturalGradientOptions { damping, blocks, precision, refinement, ..NaturalGradientOptions::new(self.n) };
        let mut optimizer = NaturalGradient::<f32>::new(&layers, options, Par::seq()).expect("valid options");
        optimizer.observe(&observations).expect("finite");
        optimizer.refresh().expect("definite");
        let in_range = |system: &Network<f32>| {
            let v = normals(33)(self.n, 1);
            system.gradients().transpose().matmul(&v).rounded::<f32>()
        };
        let u: Vec<Dense> = self.systems.iter().map(in_range).collect();
        let mut parts = Vec::new();
        for (system, u) in self.systems.iter().zip(&u) {
            let mut rest = &u.data[..];
            for seen in &system.layers {
                let [o, i] = seen.shape();
                let (part, tail) = rest.split_at(o * i);
                (rest, _) = (tail, parts.push(Owned::<f32>::new(&Dense::from_slice(o, i, part))));
            }
        }
        let gradients: Vec<_> = parts.iter().map(|part| Gradient::Matrix(part.view())).collect();
        let mut got = preconditioned(&mut optimizer, &gradients).into_iter();
        let each = |(system, u): (&Network<f32>, &Dense)| {
            let x = flat(&got.by_ref().take(system.layers.len()).collect::<Vec<_>>());
            let g = system.gradients().scaled(1.0 / (self.n as f64).sqrt());
            let exact = steps::natural_gradient(&fisher::fisher(&system.gradients(), self.n), u, self.lambda);
            let (norm, working) = (g.frobenius(), Format::of::<f32>());
            let bound = bounds::Woodbury {
                norm,
                magnitude: system.magnitudes().frobenius() / (self.n as f64).sqrt(),
                rows: self.n,
                lambda: self.lambda,
                depths: system.depths(None, Par::seq()),
                formats: [working, if precision == SystemPrecision::Double { F64 } else { working }],
                solver: if self.blocks == FisherBlocks::Whole { Solver::Factor } else { Solver::Inverse },
            };
            let length = u.frobenius();
            let bound = match refinement {
                Refinement::None => bound.errors(length, length),
                Refinement::Once => bound.refined(length, length, exact.frobenius()),
            };
            // LU in f64: a backward error of that many roundings of a matrix whose growth is at most its order.
            let p = u.rows;
            let lu = F64.gamma(3 * p) * p as f64 * (norm * norm + self.lambda) * exact.frobenius() / self.lambda;
            (x.minus(&exact).frobenius(), bound.map(|bound| bound.forward + lu))
        };
        self.systems.iter().zip(&u).map(each).collect()
    }
}

/// Every precision and refinement is within its bound, of factors and of a list of inverses.
#[test]
fn precise_steps_are_within_their_bounds() {
    for blocks in BLOCKS {
        for lambda in [1.0 / 64.0, 1.0, 64.0] {
            for precision in [SystemPrecision::Working, SystemPrecision::Double] {
                for refinement in [Refinement::None, Refinement::Once] {
                    let what = format!("{blocks:?}, {precision:?}, {refinement:?}, lambda = {lambda}");
                    for (error, bound) in Precise::new(blocks, 65, lambda).errors(precision, refinement) {
                        // A system in f64 has a bound for any of these dampings, one in f32 for the larger.
                        assert!(
                            bound.is_some() || precision == SystemPrecision::Working && lambda < 64.0,
                            "{what}: no bound"
                        );
                        assert!(bound.is_none_or(|bound| error <= bound), "{what}: error {error:e}, bound {bound:?}");
                    }
                }
            }
        }
    }
}

/// Where `|G|²` is much larger than the damping, refined steps are nearer.
#[test]
fn refined_steps_are_nearer() {
    for blocks in BLOCKS {
        for seed in 66..70 {
            let problem = Precise::new(blocks, seed, 1.0 / 1024.0);
            for precision in [SystemPrecision::Working, SystemPrecision::Double] {
                let [plain, refined] = [Refinement::None, Refinement::Once].map(|refinement| {
                    problem.errors(precision, refinement).iter().map(|(error, _)| error).sum::<f64>()
                });
                assert!(
                    refined < plain,
                    "{blocks:?}, seed {seed}, {precision:?}: {refined:e} refined, {plain:e} plain"
                );
            }
        }
    }
}

/// The bits do not depend on the number of threads.
#[test]
fn threads_change_no_bit() {
    let layers = network(&[[40, 30], [30, 20]], 1, true);
    let mut random = Random::new(61);
    let (seen, other) = (Batch::random(&mut random, &layers, 150), Batch::<f32>::random(&mut random, &layers, 20));
    for blocks in BLOCKS {
        for_every_par(&format!("{blocks:?}"), |par| {
            let options = NaturalGradientOptions { blocks, ..NaturalGradientOptions::new(150) };
            let mut optimizer = NaturalGradient::<f32>::new(&layers, options, par).expect("valid options");
            optimizer.observe(&seen.observations()).expect("finite");
            optimizer.refresh().expect("definite");
            let got = preconditioned(&mut optimizer, &other.gradients());
            got.iter().flat_map(|d| d.to_vec::<f32>()).collect()
        });
    }
}

/// A factor serves `T` steps, and is that of the mini-batch observed last; half-width and strided inputs are copied as they are.
#[test]
fn a_factor_is_kept_for_its_period() {
    let layers = network(&[[5, 4]], 3, false);
    let mut random = Random::new(62);
    let batches: Vec<Batch<f32>> = (0..8).map(|_| Batch::random(&mut random, &layers, 6)).collect();
    let schedule = Schedule { period: 3, observe: 1, initial: 1, order: Order::StepFirst };
    let step = StepOptions { learning_rate: 1.0, ..StepOptions::default() };
    let options = NaturalGradientOptions { damping: 0.5, schedule, step, ..NaturalGradientOptions::new(6) };
    let mut optimizer = NaturalGradient::<f32>::new(&layers, options, Par::seq()).expect("valid options");
    let fresh = |batch: &Batch<f32>, gradient: &Batch<f32>| {
        let options = NaturalGradientOptions { schedule: never(), ..options };
        let mut optimizer = NaturalGradient::<f32>::new(&layers, options, Par::seq()).expect("valid options");
        optimizer.observe(&batch.observations()).expect("finite");
        optimizer.refresh().expect("definite");
        preconditioned(&mut optimizer, &gradient.gradients()).remove(0)
    };
    optimizer.observe(&batches[0].observations()).expect("finite");
    optimizer.refresh().expect("definite");
    for t in 1..8 {
        // Observed at steps 2 and 5, counted from 0, and used from the next.
        let of = [0, 0, 0, 0, 3, 3, 3, 6][t];
        let expected = fresh(&batches[of], &batches[t]);
        let got = preconditioned(&mut optimizer, &batches[t].gradients()).remove(0);
        assert_same_bits(&got.data, &expected.data, &format!("before step {t}"));
        assert_eq!(optimizer.wants_observation(), t % 3 == 0);
        let seen = if optimizer.wants_observation() { batches[t].observations() } else { Vec::new() };
        let mut weights = zeros::<f32>(&layers);
        optimizer.step(&mut views(&mut weights), &batches[t].gradients(), &seen).expect("a step");
        assert_same_bits(&weights[0].dense().scaled(-1.0).data, &expected.data, &format!("step {t}"));
    }

    let [x, e] = &batches[0].0[0];
    // [N, T, d] as [d, N, T] in memory.
    let turned: Vec<half::f16> =
        (0..5).flat_map(|i| x.data[i..].iter().step_by(5)).map(|&v| half::f16::from_f32(v)).collect();
    let narrow = View::strided(&turned, 0, [6, 3, 5], [3, 1, 18]).expect("a view");
    let widened: Vec<f32> = x.data.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
    let wide = Owned { data: widened, shape: x.shape };
    let mut steps = [Observation::new(narrow), Observation::new(wide.view())].map(|seen| {
        optimizer.observe(&[seen.with_errors(e.view())]).expect("finite");
        optimizer.refresh().expect("definite");
        preconditioned(&mut optimizer, &batches[1].gradients()).remove(0)
    });
    let [one, two] = &mut steps;
    assert_same_bits(&one.data, &two.data, "half-width and strided");
}

/// An error in a step leaves weights, mini-batch and factor as they were; and every refusal says what and where.
#[test]
fn bad_input_is_refused() {
    let layers = network(&[[3, 2], [2, 2]], 1, false);
    let mut random = Random::new(63);
    let batch = Batch::<f64>::random(&mut random, &layers, 4);
    let options = NaturalGradientOptions { damping: 0.25, ..NaturalGradientOptions::new(4) };
    let make = |options| NaturalGradient::<f64>::new(&layers, options, Par::seq());
    for damping in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = make(NaturalGradientOptions { damping, ..options }).err().expect("refused");
        assert!(matches!(error, Error::Parameter { name: "damping", .. }), "{error}");
    }
    for (options, expected) in [
        (NaturalGradientOptions { fisher_batch: 0, ..options }, "fisher_batch"),
        (NaturalGradientOptions { fisher_batch: usize::MAX / 2, ..options }, "fisher_batch"),
        (NaturalGradientOptions { labels: 0, ..options }, "labels"),
    ] {
        let error = make(options).err().expect("refused");
        assert!(matches!(error, Error::Parameter { name, .. } if name == expected), "{error}");
    }
    let mut optimizer = make(options).expect("valid options");
    let missing = |error: Error| assert!(matches!(error, Error::Missing { .. }), "{error}");
    missing(optimizer.refresh().unwrap_err());
    missing(optimizer.preconditioner().used_batch().expect_err("refused"));
    optimizer.observe(&batch.observations()).expect("finite");
    optimizer.refresh().expect("definite");
    let update = Owned::<f64>::new(&random.normals(2, 2));
    missing(optimizer.metric_cosine(1, update.view(), update.view(), 1.0).unwrap_err());
    let before = optimizer.save().expect("a file");
    let mut weights = zeros::<f64>(&layers);
    let mut refuse = |seen: &[Observation<'_, f64>]| -> Error {
        let error = optimizer.step(&mut views(&mut weights), &batch.gradients(), seen).unwrap_err();
        assert!(optimizer.save().expect("a file") == before, "the state as it was");
        assert!(weights.iter().all(|w| w.data.iter().all(|&w| w == 0.0)), "the weights as they were");
        error
    };
    let fewer = Batch::<f64>::random(&mut random, &layers, 3);
    let [good, short] = [&batch, &fewer].map(|batch| batch.observations());
    let layer = |error: Error, expected: usize| match error {
        Error::Layer { layer, source } if layer == expected => *source,
        other => panic!("{other}"),
    };
    // So many that their system has no address, all in the place of one.
    let many = |d: usize| View::strided(&[1.0; 3][..d], 0, [1 << 40, d], [0, 1]).expect("a view");
    let error = refuse(&[Observation::new(many(3)).with_errors(many(2)), good[1]]);
    assert!(matches!(error, Error::Parameter { name: "datapoints", .. }), "{error}");
    let error = layer(refuse(&[good[0], short[1]]), 1);
    assert!(matches!(error, Error::Shape { argument: "inputs", .. }), "{error}");
    let without = Observation::new(batch.0[1][0].view());
    missing(layer(refuse(&[good[0], without]), 1));
    let fewer_errors = without.with_errors(fewer.0[1][1].view());
    let error = layer(refuse(&[good[0], fewer_errors]), 1);
    assert!(matches!(error, Error::Shape { argument: "errors", .. }), "{error}");
    let mut bad = Owned::<f64>::new(&batch.0[1][1].dense());
    bad.data[5] = f64::NAN;
    let error = layer(refuse(&[good[0], without.with_errors(bad.view())]), 1);
    assert_eq!(error, Error::NotFinite { argument: "errors", index: vec![2, 1] });
    // Finite numbers whose products are not: the system says so, and the mini-batch before stays.
    let mut large = Owned::<f64>::new(&batch.0[1][1].dense());
    large.data.fill(1e200);
    let error = refuse(&[good[0], without.with_errors(large.view())]);
    assert!(matches!(error, Error::NotFinite { .. } | Error::NotPositiveDefinite { .. }), "{error}");
}

/// The undamped limit: a damping as small as the rounding allows gives, where `u` is in the span of the datapoints' gradients, the pseudo-inverse;
/// a damping as large as `1e3 |G|²` gives `u / lambda` to within `|G|²/lambda` of it.
#[test]
fn large_damping_is_gradient_descent() {
    let layers = network(&[[4, 3]], 1, false);
    let batch = Batch::<f64>::random(&mut Random::new(64), &layers, 5);
    let (g, _) = gradients(&layers, &batch);
    let lambda = 1e3 * g.value.frobenius().powi(2);
    let options = NaturalGradientOptions { damping: lambda, ..NaturalGradientOptions::new(5) };
    let mut optimizer = NaturalGradient::<f64>::new(&layers, options, Par::seq()).expect("valid options");
    optimizer.observe(&batch.observations()).expect("finite");
    optimizer.refresh().expect("definite");
    let u = means(&layers, &batch).remove(0).value;
    let got = preconditioned(&mut optimizer, &batch.gradients()).remove(0);
    assert_close(&got.scaled(lambda), &u, u.frobenius() * 1e-3, "lambda D");
}
