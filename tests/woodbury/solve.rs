//! The natural gradient against the dense Fisher matrix, within derived bounds.

use crate::network::{Kind, Network, networks, normals};
use foof::woodbury::{Direction, Refinement, SystemPrecision, Woodbury, WoodburyOptions, natural_gradient_alloc};
use foof::{Bias, Element, Error, Par};
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::kernels::for_every_par;
use foof_oracle::{Dense, fisher, steps};

/// Vectors of more weights than this are tested by their residual only: a dense solve takes `P³`.
const DENSE: usize = 200;

/// A vector `u` in one of its forms, with its value and its magnitude.
struct Vector<'a, T> {
    parts: Vec<Direction<'a, T>>,
    value: Dense,
    magnitude: f64,
}

/// One problem, solved with options: its errors against their bounds.
struct Check<'a, T> {
    network: &'a Network<T>,
    lambda: f64,
    g: Dense,
    what: String,
}

impl<T: Element> Check<'_, T> {
    fn bound(&self, options: &WoodburyOptions<T>, other: Option<&Network<T>>, par: Par) -> bounds::Woodbury {
        let n = self.network.layers[0].n as f64;
        let system = match options.precision {
            SystemPrecision::Working => Format::of::<T>(),
            SystemPrecision::Double => F64,
        };
        bounds::Woodbury {
            norm: self.g.frobenius(),
            magnitude: self.network.magnitudes().frobenius() / n.sqrt(),
            rows: self.network.rows(),
            lambda: self.lambda,
            depths: self.network.depths(other, par),
            formats: [Format::of::<T>(), system],
            solver: bounds::Solver::Factor,
        }
    }

    /// `(F + lambda I) x - u`.
    fn residual(&self, x: &Dense, u: &Dense) -> f64 {
        let products = self.g.transpose().matmul(&self.g.matmul(x));
        products.plus(&x.scaled(self.lambda)).minus(u).frobenius()
    }

    fn run(&self, u: &Vector<'_, T>, other: Option<&Network<T>>, options: &WoodburyOptions<T>) -> usize {
        let mut bounded = 0;
        let exact = (u.value.rows <= DENSE).then(|| {
            let f = fisher::fisher(&self.network.gradients(), self.network.layers[0].n);
            steps::natural_gradient(&f, &u.value, self.lambda)
        });
        let norm = self.g.frobenius();
        for (isa, x) in for_every_par(&self.what, |par: Par| {
            let mut out = vec![T::nan(); self.network.weights()];
            let solved = natural_gradient_alloc(
                &mut self.network.parts_mut(&mut out),
                &self.network.batch(),
                &u.parts,
                options,
                par,
            );
            let bound = self.bound(options, other, par).errors(u.value.frobenius(), u.magnitude);
            match solved {
                Ok(()) => out,
                // Rounding may make a system indefinite only where its error reaches the damping.
                Err(error) => {
                    assert!(matches!(error, Error::NotPositiveDefinite { .. }), "{}: {error}", self.what);
                    assert!(bound.is_none(), "{}: {error}", self.what);
                    Vec::new()
                }
            }
        }) {
            let par = Par::seq().with_isa(isa);
            let bound = self.bound(options, other, par);
            let norms = (u.value.frobenius(), u.magnitude);
            let bound = match options.refinement {
                Refinement::None => bound.errors(norms.0, norms.1),
                // Of a vector that is at most this long.
                Refinement::Once => bound.refined(norms.0, norms.1, norms.0 / self.lambda),
            };
            let (Some(bound), false) = (bound, x.is_empty()) else { continue };
            let x = Dense::from_slice(x.len(), 1, &x);
            let what = format!("{}, {isa}, {options:?}", self.what);
            // What the oracle's own sums round: R and P terms, twice.
            let terms = self.network.rows() + self.network.weights() + 4;
            let own = F64.gamma(2 * terms) * ((norm * norm + self.lambda) * x.frobenius() + norms.0);
            let residual = self.residual(&x, &u.value);
            assert!(residual <= bound.residual + own, "{what}: residual {residual:e}, bound {:e}", bound.residual);
            if let Some(exact) = &exact {
                // LU in f64: a backward error of that many roundings of a matrix whose growth is at most its order.
                let p = u.value.rows;
                let lu = F64.gamma(3 * p) * p as f64 * (norm * norm + self.lambda) * exact.frobenius() / self.lambda;
                let error = x.minus(exact).frobenius();
                assert!(error <= bound.forward + lu, "{what}: error {error:e}, bound {:e}", bound.forward);
            }
            bounded += 1;
        }
        bounded
    }
}

fn options<T: Element>(lambda: f64) -> Vec<WoodburyOptions<T>> {
    let plain = WoodburyOptions::new(T::from_f64(lambda));
    vec![
        plain,
        WoodburyOptions { precision: SystemPrecision::Double, ..plain },
        WoodburyOptions { refinement: Refinement::Once, ..plain },
        WoodburyOptions { precision: SystemPrecision::Double, refinement: Refinement::Once, ..plain },
    ]
}

/// Powers of two between 1e-6 and 1e3, the same in both formats.
const DAMPINGS: [f64; 4] = [1.0 / 1048576.0, 1.0 / 1024.0, 1.0, 1024.0];

fn natural_gradients<T: Element>() {
    let mut bounded = [0; DAMPINGS.len()];
    for (number, kinds) in networks().into_iter().enumerate() {
        // One row, fewer than weights, more than weights.
        for (n, labels) in [(1, 1), (3, 1), (5, 3), (40, 1)] {
            if n > 5 && kinds.iter().any(|kind| kind.layer().positions() > 9) || number == 7 && n > 3 {
                continue;
            }
            let network = Network::<T>::new(&kinds, n, labels, normals(number as u64));
            let other = Network::<T>::new(&kinds, 3, 1, normals(9));
            let value = normals(8)(network.weights(), 1).rounded::<T>();
            let values = value.to_vec::<T>();
            let mean = |gradients: Dense| Dense::from_fn(1, 3, |_, _| 0.5).matmul(&gradients).transpose();
            let low_rank = mean(other.gradients());
            let low_rank_magnitude = mean(other.magnitudes()).frobenius();
            for (place, lambda) in DAMPINGS.into_iter().enumerate() {
                let g = network.gradients().scaled(1.0 / (n as f64).sqrt());
                let what = format!("{kinds:?}, N = {n}, {labels} labels, lambda = {lambda}");
                let check = Check { network: &network, lambda, g, what };
                let magnitude = value.frobenius();
                let matrix = Vector { parts: network.parts(&values), value: value.clone(), magnitude };
                let rows =
                    Vector { parts: other.low_rank(0.5), value: low_rank.clone(), magnitude: low_rank_magnitude };
                for options in options(lambda) {
                    bounded[place] += check.run(&matrix, None, &options);
                    bounded[place] += check.run(&rows, Some(&other), &options);
                }
            }
        }
    }
    // For the smallest damping f32 has a bound where the system is in f64.
    assert!(bounded.iter().all(|&count| count > 0), "{bounded:?} answers were compared");
}

#[test]
fn natural_gradients_f32() {
    natural_gradients::<f32>();
}

#[test]
fn natural_gradients_f64() {
    natural_gradients::<f64>();
}

/// Where `|G|²` is much larger than the damping, refined answers are nearer, and within the bound of refined ones.
#[test]
fn refinement_helps() {
    for seed in 0..8 {
        let network = Network::<f32>::new(&[Kind::dense(12, 9), Kind::dense(9, 4)], 6, 1, normals(seed));
        let (lambda, n) = (1.0 / 1024.0, 6.0f64);
        let g = network.gradients().scaled(1.0 / n.sqrt());
        // In the range of G, so that most of u - G w cancels.
        let u = g.transpose().matmul(&normals(seed + 20)(6, 1)).rounded::<f32>();
        let values = u.to_vec::<f32>();
        let exact = steps::natural_gradient(&fisher::fisher(&network.gradients(), 6), &u, lambda);
        let error = |options: &WoodburyOptions<f32>| {
            let mut out = vec![0.0; network.weights()];
            let mut parts = network.parts_mut(&mut out);
            natural_gradient_alloc(&mut parts, &network.batch(), &network.parts(&values), options, Par::seq())
                .expect("a system that is definite");
            Dense::from_slice(out.len(), 1, &out).minus(&exact).frobenius()
        };
        let [plain, refined] = [0, 2].map(|number| error(&options(lambda)[number]));
        assert!(refined < plain, "seed {seed}: {refined:e} refined, {plain:e} plain");
        let check = Check { network: &network, lambda, g, what: format!("seed {seed}") };
        let bound = check.bound(&options(lambda)[2], None, Par::seq());
        let norm = u.frobenius();
        let bound = bound.refined(norm, norm, exact.frobenius()).expect("a bound");
        assert!(refined <= bound.forward, "seed {seed}: {refined:e} refined, bound {:e}", bound.forward);
    }
}

/// A kept factor gives the bits of the whole solve, and is made anew in place.
#[test]
fn a_kept_factor_is_the_same() {
    let kinds = [Kind::Dense { i: 5, o: 4, t: 2, bias: Bias::With }, Kind::dense(4, 3)];
    let networks = [11, 4].map(|n| Network::<f32>::new(&kinds, n, 1, normals(n as u64)));
    let u = normals(3)(networks[0].weights(), 1).to_vec::<f32>();
    let mut kept = Woodbury::new_alloc(&networks[0].batch(), &options(0.5)[0], Par::seq()).expect("definite");
    for (network, options) in networks.iter().zip([options(0.5)[0], options(0.25)[3]]) {
        let batch = network.batch();
        let mut memory = foof::MemBuffer::new(Woodbury::scratch(&batch, &options, Par::seq()));
        kept.refactor(&batch, &options, Par::seq(), foof::MemStack::new(&mut memory)).expect("definite");
        let [mut once, mut again] = [0, 1].map(|_| vec![f32::NAN; network.weights()]);
        natural_gradient_alloc(&mut network.parts_mut(&mut once), &batch, &network.parts(&u), &options, Par::seq())
            .expect("definite");
        for _ in 0..2 {
            kept.solve_alloc(&mut network.parts_mut(&mut again), &batch, &network.parts(&u), Par::seq())
                .expect("the same batch");
            assert_eq!(once, again);
        }
        assert_eq!((kept.rows(), kept.datapoints()), (network.rows(), network.layers[0].n));
    }
}
