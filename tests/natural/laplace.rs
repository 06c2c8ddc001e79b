//! Laplace's posterior: the sampling map analytically, PyTorch's variances, and samples statistically.

use crate::batch::{Batch, Owned};
use crate::golden::Net;
use crate::network::{Kind, Network, Seen};
use foof::convolution::FeatureOrder;
use foof::inverse::damped_cholesky_alloc;
use foof::kronecker::Eigenbasis;
use foof::laplace::{Laplace, Prior, input_factor_sample_alloc, kronecker_sample_alloc};
use foof::layer::Layer;
use foof::optim::Observation;
use foof::woodbury::Form;
use foof::{Bias, Error, MatMut, MatRef, MemBuffer, MemStack, Par, Sampler, eigen};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_close, assert_same_bits};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random, fisher};

/// A small network with a batch of `n` datapoints and `labels` rows of errors for each, and a prior for each layer.
struct Problem {
    layers: Vec<Layer>,
    priors: Vec<Prior<f64>>,
    batch: Batch<f64>,
    n: usize,
    labels: usize,
}

impl Problem {
    fn new(seed: u64, [n, labels]: [usize; 2]) -> Self {
        let mut random = Random::new(seed);
        let shared = Layer::dense(3, 2).and_then(|layer| layer.with_positions(2)).expect("sizes");
        let layers = vec![shared.with_bias(), Layer::dense(2, 2).expect("sizes")];
        let mut variances = |count| (0..count).map(|_| 0.25 + random.uniform()).collect::<Vec<f64>>();
        let priors =
            vec![Prior::Separable { inputs: variances(4), outputs: variances(2) }, Prior::Isotropic { variance: 0.5 }];
        let tensors = layers.iter().map(|layer| {
            let mut rows = |count, cols| Owned::new(&random.normals(count * layer.positions(), cols));
            [rows(n, layer.inputs()), rows(n * labels, layer.outputs())]
        });
        let batch = Batch(tensors.collect());
        Problem { layers, priors, batch, n, labels }
    }

    fn laplace(&self, par: Par) -> Laplace<f64> {
        let seen = self.batch.observations();
        Laplace::new(&self.layers, &self.priors, &seen, [self.n, self.labels], par).expect("definite")
    }

    fn deviations(&self) -> Vec<f64> {
        deviations(&self.layers, &self.priors)
    }

    /// `H`, `[R, P]`: the rows of gradients in units of the prior, with its rounding, and what `H H^T` may be off by beyond a product of
    /// these, as for the golden networks; scaling is three roundings more.
    fn gradients(&self) -> (Approx, f64) {
        let (mut all, mut error, mut gram) = (Vec::new(), 0.0, 0.0);
        for (layer, [x, e]) in self.layers.iter().zip(&self.batch.0) {
            let t = layer.positions();
            let x = fisher::datapoints(&x.dense(), t);
            let x = if layer.bias() == Bias::With { fisher::with_one(&x) } else { x };
            let e = fisher::datapoints(&e.dense(), t);
            let repeated: Vec<Dense> = (0..e.len()).map(|r| x[r / self.labels].clone()).collect();
            let [o, i] = layer.weight_shape();
            let norms = fisher::stacked(&repeated).frobenius() * fisher::stacked(&e).frobenius();
            let gamma = F64.gamma(o * i + t * t + o + i + 16);
            error += gamma * norms;
            gram += gamma * norms * norms;
            all.push(fisher::gradients(&repeated, &e));
        }
        let deviations = self.deviations();
        let g = fisher::concatenated(&all);
        let largest = deviations.iter().fold(0.0f64, |a, &b| a.max(b));
        let h = Dense::from_fn(g.rows, g.cols, |r, p| g[(r, p)] * deviations[p]);
        (Approx::exact_f64(h).with_error(error * largest), gram * largest * largest)
    }

    fn posterior(&self) -> (Dense, f64) {
        let (h, gram) = self.gradients();
        posterior(&h, gram, &self.deviations())
    }

    /// The sampling map, `[P, P + R]`.
    fn map(&self, laplace: &Laplace<f64>) -> Dense {
        map(&self.layers, self.n * self.labels, laplace)
    }
}

/// Prior deviations of all weights.
fn deviations(layers: &[Layer], priors: &[Prior<f64>]) -> Vec<f64> {
    let each = |(layer, prior): (&Layer, &Prior<f64>)| -> Vec<f64> {
        let [o, i] = layer.weight_shape();
        let of = |k: usize| match prior {
            Prior::Isotropic { variance } => variance.sqrt(),
            Prior::Separable { inputs, outputs } => (outputs[k / i] * inputs[k % i]).sqrt(),
        };
        (0..o * i).map(of).collect()
    };
    layers.iter().zip(priors).flat_map(each).collect()
}

/// The posterior covariance by a dense inverse, and what the sampling map times its transpose may be off by: the error of the inverse, and of the
/// map's own evaluation `[I - H^T K^-1 H, -H^T K^-1]`, both in units of the prior. `gram` is what `H H^T` may be off by beyond a product of `h`.
fn posterior(h: &Approx, gram: f64, deviations: &[f64]) -> (Dense, f64) {
    let dense = h.transpose().matmul(h).damped_inverse(1.0);
    let k = h.matmul(&h.transpose());
    let error = k.error + gram;
    let right = h.transpose().matmul(&k.with_error(error).damped_inverse(1.0));
    let left = Approx::exact_f64(Dense::identity(h.value.cols)).plus(&right.matmul(h).scaled(-1.0));
    let product = left.matmul(&left.transpose()).plus(&right.matmul(&right.transpose()));
    let deviations = Dense::diagonal(deviations);
    let covariance = deviations.matmul(&dense.value).matmul(&deviations);
    let largest = deviations.max_abs();
    (covariance, 2.0 * (dense.error + product.error) * largest * largest)
}

/// Of all unit vectors at once.
fn map(layers: &[Layer], rows: usize, laplace: &Laplace<f64>) -> Dense {
    let shapes: Vec<[usize; 2]> = layers.iter().map(|layer| layer.weight_shape()).collect();
    let p = shapes.iter().map(|shape| shape[0] * shape[1]).sum::<usize>();
    let units = Dense::identity(p + rows);
    let mut y: Vec<f64> = (0..p + rows).flat_map(|k| units.row(k)[..p].to_vec()).collect();
    let mut z: Vec<f64> = (0..p + rows).flat_map(|k| units.row(k)[p..].to_vec()).collect();
    let mut memory = MemBuffer::new(laplace.map_scratch(p + rows));
    let all: Vec<[usize; 2]> = (0..p + rows).flat_map(|_| shapes.clone()).collect();
    laplace.map(&mut crate::split(&mut y, &all), &mut z, MemStack::new(&mut memory)).expect("shapes agree");
    Dense::from_slice(p + rows, p, &y).transpose()
}

/// The sampling map times its transpose is the posterior covariance: samples are exact.
#[test]
fn the_sampling_map_times_its_transpose_is_the_posterior_covariance() {
    for (seed, shape) in [(71, [3, 1]), (72, [7, 2]), (73, [40, 1])] {
        let problem = Problem::new(seed, shape);
        let (covariance, bound) = problem.posterior();
        assert!(bound < Format::of::<f32>().unit.sqrt() * covariance.frobenius(), "tolerance {bound:e}");
        for par in isas().into_iter().chain([Par::threads(2)]) {
            let map = problem.map(&problem.laplace(par));
            assert_close(&map.matmul(&map.transpose()), &covariance, bound, &format!("{par:?}: {shape:?}"));
        }
    }
}

/// Deviations of a convolution's features, in either order, of each group and of the bias; a strided network whose Gram matrix is of gradients, one
/// of a single position whose is of pairs; a dense layer beside. Roundings of a term as in [`Problem::gradients`].
#[test]
fn separable_priors_of_convolutions() {
    let mut random = Random::new(81);
    let mut forms = Vec::new();
    for (order, [h, w], [n, labels]) in [
        (FeatureOrder::ChannelTaps, [4, 5], [3, 1]),
        (FeatureOrder::TapsChannel, [4, 5], [2, 2]),
        (FeatureOrder::ChannelTaps, [2, 2], [4, 2]),
        (FeatureOrder::TapsChannel, [1, 2], [5, 1]),
    ] {
        for (groups, bias) in [(1, Bias::With), (2, Bias::Without), (2, Bias::With)] {
            let conv = Kind::Conv { c: 4, o: 2, h, w, kernel: 3, stride: 2, groups, bias, order };
            let network =
                Network::<f64>::new(&[conv, Kind::dense(2, 3)], n, labels, |rows, cols| random.normals(rows, cols));
            let mut variances = |count| (0..count).map(|_| 0.25 + random.uniform()).collect::<Vec<f64>>();
            let priors: Vec<Prior<f64>> = (network.layers.iter().map(Seen::shape))
                .map(|[o, i]| Prior::Separable { inputs: variances(i), outputs: variances(o) })
                .collect();
            let layers: Vec<Layer> = network.layers.iter().map(|seen| seen.layer).collect();
            let seen: Vec<_> = network.layers.iter().map(Seen::observation).collect();
            forms.push(Form::of(&network.layers[0].kernel()));

            let deviations = deviations(&layers, &priors);
            let largest = deviations.iter().fold(0.0f64, |a, &b| a.max(b));
            let g = network.gradients();
            let h = Dense::from_fn(g.rows, g.cols, |r, p| g[(r, p)] * deviations[p]);
            let ([o, i], t) = (layers[0].weight_shape(), layers[0].positions());
            let magnitude = network.magnitudes().frobenius() * largest;
            let gamma = F64.gamma(o * i + t * t + o + i + 16);
            let h = Approx::exact_f64(h).with_error(gamma * magnitude);
            let (covariance, bound) = posterior(&h, gamma * magnitude * magnitude, &deviations);
            assert!(bound < Format::of::<f32>().unit.sqrt() * covariance.frobenius(), "tolerance {bound:e}");
            for par in isas().into_iter().chain([Par::threads(2)]) {
                let laplace = Laplace::new(&layers, &priors, &seen, [n, labels], par).expect("definite");
                let map = map(&layers, n * labels, &laplace);
                let what = format!("{par:?}: {conv:?}, {n} datapoints, {labels} labels");
                assert_close(&map.matmul(&map.transpose()), &covariance, bound, &what);
            }
        }
    }
    assert!(forms.contains(&Form::Pairs) && forms.contains(&Form::Gradients), "both forms: {forms:?}");
}

/// PyTorch's variances of the golden networks, convolutions too: prior precision 2, so `H` is `sqrt(1/2)` of the gradients.
#[test]
fn golden_variances() {
    for name in Case::NAMES {
        let net = Net::load(name);
        let (x, e) = (net.tensors("input"), net.tensors("error_mc"));
        let seen: Vec<Observation<'_, f64>> = net.observations(&x, &e);
        let priors = vec![Prior::Isotropic { variance: 0.5 }; net.layers.len()];
        let n = net.datapoints();
        let laplace = Laplace::new(&net.layers, &priors, &seen, [n, 1], Par::threads(2)).expect("definite");
        let map = map(&net.layers, n, &laplace);
        let (g, gram) = net.gradients("error_mc", 0..net.layers.len());
        let h = g.scaled(0.5f64.sqrt());
        let (_, bound) = posterior(&h, 0.5 * gram, &vec![0.5f64.sqrt(); h.value.cols]);
        let variances = |of: &dyn Fn(usize) -> f64| Dense::from_fn(h.value.cols, 1, |i, _| of(i));
        let ours = variances(&|i| map.row(i).iter().map(|m| m * m).sum());
        let golden = net.case.golden.values("laplace_covariance_diag");
        let golden = variances(&|i| golden[i]);
        assert!(bound < Format::of::<f32>().unit.sqrt() * golden.frobenius(), "{name}: tolerance {bound:e}");
        assert_close(&ours, &golden, bound, name);
    }
}

/// The chance that all tests of a set of samples together raise a false alarm.
const FALSE_ALARM: f64 = 1e-9;
const SAMPLES: usize = 20_000;

/// Whether samples `[K, P]` are of `N(0, covariance)`, by their whitened coordinates `x`, which should be independent standard normals.
///
/// In each of the `m = P²` directions `e_i` and `(e_i ± e_j) / sqrt 2` the mean square over `K` samples is a chi-square over `K` and within
/// `t = sqrt(8 ln(2 m / alpha) / K) < 1` of one (Laurent and Massart 2000, lemma 1), but with probability `alpha` altogether; each mean is
/// within `sqrt(2 ln(2 P / alpha) / K)` of zero. A covariance that is off by `2 t` in one of these directions is caught.
fn assert_normal(samples: &Dense, covariance: &Dense, what: &str) {
    let l = covariance.cholesky().expect("definite");
    let x = l.solve(&samples.transpose()).transpose();
    let (k, p) = (x.rows as f64, x.cols);
    let t = (8.0 * (4.0 * (p * p) as f64 / FALSE_ALARM).ln() / k).sqrt();
    assert!(t < 0.15, "samples enough to tell");
    let mean_of = |direction: &dyn Fn(&[f64]) -> f64| (0..x.rows).map(|r| direction(x.row(r))).sum::<f64>() / k;
    for i in 0..p {
        let mean = mean_of(&|x| x[i]);
        assert!(mean.abs() <= (2.0 * (4.0 * p as f64 / FALSE_ALARM).ln() / k).sqrt(), "{what}: mean {i} is {mean}");
        let square = mean_of(&|x| x[i] * x[i]);
        assert!((square - 1.0).abs() <= t, "{what}: variance {i} is {square}");
        for j in 0..i {
            for sign in [-1.0, 1.0] {
                let square = mean_of(&|x| (x[i] + sign * x[j]).powi(2) / 2.0);
                assert!((square - 1.0).abs() <= t, "{what}: variance along {i}, {sign} {j} is {square}");
            }
        }
    }
}

#[test]
fn samples_have_the_posterior_distribution() {
    let problem = Problem::new(74, [4, 2]);
    let laplace = problem.laplace(Par::seq());
    let mean: Vec<Dense> = problem
        .layers
        .iter()
        .map(|layer| Dense::from_fn(layer.weight_shape()[0], layer.weight_shape()[1], |i, j| (i + j) as f64))
        .collect();
    let views: Vec<_> = mean.iter().map(|m| MatRef::new(&m.data, [m.rows, m.cols]).expect("a view")).collect();
    let shapes: Vec<_> = views.iter().map(|view| view.shape()).collect();
    let p = shapes.iter().map(|shape| shape[0] * shape[1]).sum::<usize>();
    let draw = |sampler: &mut Sampler| {
        let mut out = vec![f64::NAN; p];
        laplace.sample(&mut crate::split(&mut out, &shapes), &views, sampler).expect("shapes agree");
        let mean = crate::flat(&mean);
        out.iter().zip(&mean.data).map(|(w, m)| w - m).collect::<Vec<f64>>()
    };
    let (covariance, mut sampler) = (problem.posterior().0, Sampler::new(75));
    let rows: Vec<f64> = (0..SAMPLES).flat_map(|_| draw(&mut sampler)).collect();
    let samples = Dense::from_slice(SAMPLES, p, &rows);
    assert_normal(&samples, &covariance, "full covariance");
    assert_same_bits(&draw(&mut Sampler::new(75)), samples.row(0), "the same seed");
    assert_ne!(samples.row(0), samples.row(1));

    // Many at a time, with the same bits for any number of threads.
    let center = crate::flat(&mean).data;
    let many = |par: Par| {
        let laplace = problem.laplace(par);
        let (mut out, mut sampler) = (vec![f64::NAN; SAMPLES * p], Sampler::new(76));
        let all: Vec<[usize; 2]> = (0..SAMPLES).flat_map(|_| shapes.clone()).collect();
        let mut memory = MemBuffer::new(laplace.samples_scratch(SAMPLES));
        let mut parts = crate::split(&mut out, &all);
        laplace.samples(&mut parts, &views, &mut sampler, MemStack::new(&mut memory)).expect("shapes agree");
        drop(parts);
        out.iter().enumerate().map(|(at, w)| w - center[at % p]).collect::<Vec<f64>>()
    };
    let rows = many(Par::seq());
    assert_normal(&Dense::from_slice(SAMPLES, p, &rows), &covariance, "many at a time");
    assert_same_bits(&many(Par::threads(2)), &rows, "two threads");
}

/// `log det (I + H H^T)`: the factor is of a matrix off by `d` in norm, `d` the error of the Gram matrix and Cholesky's backward error, and no
/// eigenvalue of it is below one, so the logarithms together move by at most `sqrt(R) d / (1 - d)`; `R + 3` roundings of the sum.
#[test]
fn evidence() {
    let problem = Problem::new(76, [6, 2]);
    let (h, gram) = problem.gradients();
    let k = h.matmul(&h.transpose());
    let matrix = k.value.damped(1.0);
    let eigen = matrix.symmetric_eigen().values;
    let expected: f64 = eigen.iter().map(|v| v.ln()).sum();
    let r = matrix.rows;
    let d = k.error + gram + bounds::cholesky_norm(F64, r, matrix.trace()) + 2.0 * bounds::eigenvalue_error(&matrix);
    let bound = 2.0 * ((r as f64).sqrt() * d / (1.0 - d) + F64.gamma(r + 3) * expected.abs());
    let laplace = problem.laplace(Par::seq());
    let got = laplace.log_det().expect("a factor");
    assert!((got - expected).abs() <= bound, "{got} is not {expected}, bound {bound:e}");

    let mut random = Random::new(77);
    let v: Vec<Dense> =
        problem.layers.iter().map(|layer| random.normals(layer.weight_shape()[0], layer.weight_shape()[1])).collect();
    let views: Vec<_> = v.iter().map(|v| MatRef::new(&v.data, [v.rows, v.cols]).expect("a view")).collect();
    let terms: Vec<f64> =
        crate::flat(&v).data.iter().zip(problem.deviations()).map(|(v, d)| (v / d) * (v / d)).collect();
    let (got, expected) = (laplace.prior_quadratic_form(&views).expect("shapes agree"), terms.iter().sum::<f64>());
    // Each term: two roots and their product, a quotient and a square, in both.
    assert!((got - expected).abs() <= 2.0 * F64.gamma(terms.len() + 12) * expected, "{got} is not {expected}");
}

/// One layer's factors, damped covariances by dense inverses.
#[test]
fn samples_of_kronecker_posteriors() {
    let (o, i, n, delta) = (3, 4, 5.0, 0.75);
    let mut random = Random::new(78);
    let [a, b] = [i, o].map(|d| {
        let x = random.normals(2 * d, d);
        x.transpose().matmul(&x).scaled(0.5 / d as f64)
    });
    let view = |m: &Dense| -> MatRef<'static, f64> {
        // The test leaks a few matrices.
        MatRef::new(Vec::leak(m.data.clone()), [m.rows, m.cols]).expect("a view")
    };
    let decomposed = [&a, &b].map(|m| {
        let (mut values, mut vectors) = (vec![0.0; m.rows], vec![0.0; m.data.len()]);
        let out = MatMut::new(&mut vectors, [m.rows; 2]).expect("a view");
        eigen::self_adjoint_eigen_alloc(&mut values, out, view(m), 1.0).expect("converges");
        (values, Dense::from_slice(m.rows, m.rows, &vectors))
    });
    let [input, error] = &decomposed;
    let mean = Dense::from_fn(o, i, |k, j| (k * i + j) as f64);
    let mut sampler = Sampler::new(79);
    let mut samples = |draw: &mut dyn FnMut(MatMut<'_, f64>, &mut Sampler)| {
        let mut rows = Vec::new();
        for _ in 0..SAMPLES {
            let mut out = vec![f64::NAN; o * i];
            draw(MatMut::new(&mut out, [o, i]).expect("a view"), &mut sampler);
            rows.extend(out.iter().zip(&mean.data).map(|(w, m)| w - m));
        }
        Dense::from_slice(SAMPLES, o * i, &rows)
    };
    let (mean_view, vectors) = (view(&mean), [view(&input.1), view(&error.1)]);
    let kronecker = samples(&mut |out, sampler| {
        let input = Eigenbasis { values: &input.0, vectors: vectors[0] };
        let error = Eigenbasis { values: &error.0, vectors: vectors[1] };
        kronecker_sample_alloc(out, mean_view, input, error, n, delta, sampler, Par::seq()).expect("valid");
    });
    let precision = b.kron(&a).scaled(n).damped(delta);
    assert_normal(&kronecker, &precision.solve(&Dense::identity(o * i)), "Kronecker");

    let mut l = vec![0.0; i * i];
    let out = MatMut::new(&mut l, [i, i]).expect("a view");
    damped_cholesky_alloc(out, view(&a), n, delta, Par::seq()).expect("definite");
    let l = view(&Dense::from_slice(i, i, &l));
    let one_factor = samples(&mut |out, sampler| {
        input_factor_sample_alloc(out, mean_view, l, sampler, Par::seq()).expect("valid");
    });
    let precision = Dense::identity(o).kron(&a.scaled(n).damped(delta));
    assert_normal(&one_factor, &precision.solve(&Dense::identity(o * i)), "one factor");
}

#[test]
fn bad_posteriors_are_refused() {
    let problem = Problem::new(80, [3, 1]);
    let seen = problem.batch.observations();
    let refuse = |priors: &[Prior<f64>]| {
        Laplace::new(&problem.layers, priors, &seen, [3, 1], Par::seq()).err().expect("refused")
    };
    let good = &problem.priors[0];
    for variance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        match refuse(&[good.clone(), Prior::Isotropic { variance }]) {
            Error::Layer { layer: 1, source } => {
                assert!(matches!(*source, Error::Parameter { name: "prior.variance", .. }), "{source}");
            }
            other => panic!("{other}"),
        }
    }
    let short = Prior::Separable { inputs: vec![1.0; 3], outputs: vec![1.0; 2] };
    match refuse(&[short, problem.priors[1].clone()]) {
        Error::Layer { layer: 0, source } => {
            assert_eq!(*source, Error::Shape { argument: "prior.inputs", expected: vec![4], got: vec![3] });
        }
        other => panic!("{other}"),
    }
    assert!(matches!(refuse(&problem.priors[..1]), Error::Shape { argument: "priors", .. }));
    let laplace = problem.laplace(Par::seq());
    let mut sampler = Sampler::new(1);
    let (mut out, mean) = (vec![0.5; 12], [f64::NAN; 12]);
    let shapes = [[2, 4], [2, 2]];
    let nan = [MatRef::new(&mean[..8], [2, 4]).expect("a view"), MatRef::new(&mean[..4], [2, 2]).expect("a view")];
    let error = laplace.sample(&mut crate::split(&mut out, &shapes), &nan, &mut sampler).unwrap_err();
    assert!(matches!(error, Error::Layer { layer: 0, .. }), "{error}");
    assert_eq!((sampler.position(), &out[..]), (0, &[0.5; 12][..]), "as they were");
    let mut memory = MemBuffer::new(laplace.map_scratch(1));
    let mut y = [0.5; 8];
    let mut one = crate::split(&mut y, &shapes[..1]);
    let error = laplace.map(&mut one, &mut [0.0; 3], MemStack::new(&mut memory)).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "y", .. }), "{error}");
}
