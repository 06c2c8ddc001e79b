//! The golden networks: natural gradients and Fisher-vector products of PyTorch's dense solves.

use crate::{flat, split, woodbury};
use foof::convolution::{Axis, Conv};
use foof::fisher::{fisher_quadratic_form_alloc, fisher_vector_product_alloc};
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{FisherBlocks, NaturalGradient, NaturalGradientOptions, Observation};
use foof::woodbury::{Direction, LayerBatch};
use foof::{Blend, MatRef, Par, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, network};

/// A golden network with its tensors as they lie in the file.
pub struct Net {
    pub case: Case,
    pub layers: Vec<Layer>,
}

/// Inputs or errors of one layer.
pub struct Tensor {
    values: Vec<f64>,
    shape: Vec<usize>,
}

impl Tensor {
    fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::new(&self.values, [self.shape[0], self.shape[1]]).expect("a matrix")
    }

    fn images(&self) -> View<'_, f64, 4> {
        View::new(&self.values, self.shape[..].try_into().expect("four axes")).expect("images")
    }
}

impl Net {
    pub fn load(name: &str) -> Self {
        let case = Case::load(name);
        let layer = |l: usize| {
            let [inputs, outputs] = ["input", "error_mc"].map(|side| case.golden.shape(&format!("{side}.{l}")));
            let Some(geometry) = case.layers[l] else {
                let layer = Layer::dense(inputs[1], outputs[1]).expect("sizes");
                return if case.bias == network::Bias::With { layer.with_bias() } else { layer };
            };
            let axis = |axis: usize| Axis {
                size: inputs[1 + axis],
                kernel: geometry.kernel[axis],
                stride: geometry.stride[axis],
                dilation: geometry.dilation[axis],
                padding: geometry.padding[axis],
            };
            let conv = Conv::new(inputs[1], outputs[1], [axis(1), axis(2)]).expect("a convolution");
            Layer::conv(conv.with_groups(geometry.groups).expect("groups"))
        };
        let layers = (0..case.layers.len()).map(layer).collect();
        Net { case, layers }
    }

    pub fn tensors(&self, name: &str) -> Vec<Tensor> {
        let tensor = |l: usize| {
            let name = format!("{name}.{l}");
            Tensor { values: self.case.golden.values(&name), shape: self.case.golden.shape(&name) }
        };
        (0..self.layers.len()).map(tensor).collect()
    }

    pub fn batch<'a>(&self, inputs: &'a [Tensor], errors: &'a [Tensor]) -> Vec<LayerBatch<'a, f64>> {
        let layers = self.layers.iter().zip(inputs.iter().zip(errors));
        let batch = layers.map(|(layer, (x, e))| match layer.convolution() {
            Some(_) => LayerBatch::new(layer, x.images(), e.images()),
            None => LayerBatch::new(layer, x.matrix(), e.matrix()),
        });
        batch.collect::<Result<_, _>>().expect("a batch")
    }

    pub fn observations<'a>(&self, inputs: &'a [Tensor], errors: &'a [Tensor]) -> Vec<Observation<'a, f64>> {
        let layers = self.layers.iter().zip(inputs.iter().zip(errors));
        let seen = layers.map(|(layer, (x, e))| match layer.convolution() {
            Some(_) => Observation::new(x.images()).with_errors(e.images()),
            None => Observation::new(x.matrix()).with_errors(e.matrix()),
        });
        seen.collect()
    }

    pub fn shapes(&self) -> Vec<[usize; 2]> {
        self.layers.iter().map(Layer::weight_shape).collect()
    }

    /// The parts of a golden vector over all weights.
    pub fn parts(&self, name: &str) -> Vec<Dense> {
        let shapes = self.shapes().into_iter().enumerate();
        shapes.map(|(l, [o, i])| Dense::from_slice(o, i, &self.case.golden.values(&format!("{name}.{l}")))).collect()
    }

    /// The rows of gradients of the layers of `range`, and what entries of `G^T G` may be off by beyond a product of these.
    ///
    /// Whatever the order, a sum over pairs of positions, or over positions and weights, passes at most `d = o i + T² + o + i + 8` roundings, of terms
    /// whose magnitudes add up to `|X| |E|` for one row, and to its square for a pair.
    pub fn gradients(&self, errors: &str, range: core::ops::Range<usize>) -> (Approx, f64) {
        let (mut gram, mut layers) = (0.0, Vec::new());
        for l in range {
            let g = self.case.layer_gradients("input", errors, l);
            let norm =
                |blocks: &[Vec<Dense>]| blocks.iter().flatten().map(|x| x.frobenius().powi(2)).sum::<f64>().sqrt();
            let (x, e) = (self.case.inputs("input", l), self.case.errors(errors, l));
            let (positions, [o, i]) = (x[0][0].rows, self.shapes()[l]);
            let labels = (e[0].len() / x[0].len()) as f64;
            let magnitude = norm(&x) * labels.sqrt() * norm(&e);
            let gamma = F64.gamma(o * i + positions * positions + o + i + 8);
            gram += gamma * magnitude * magnitude;
            let error = g.error + gamma * magnitude;
            layers.push(g.with_error(error));
        }
        let values: Vec<Dense> = layers.iter().map(|g| g.value.clone()).collect();
        let error = layers.iter().map(|g| g.error).sum();
        (Approx::exact_f64(foof_oracle::fisher::concatenated(&values)).with_error(error), gram)
    }

    pub fn datapoints(&self) -> usize {
        self.case.golden.shape("input.0")[0]
    }
}

/// Within the derived tolerance, which is below half the digits of single precision.
#[track_caller]
pub fn check(derived: &Approx, actual: &Dense, what: &str) {
    derived.assert_matches(actual, what);
    let relative = derived.error / derived.value.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "{what}: tolerance {relative:e}");
}

fn directions(parts: &[Dense]) -> Vec<Direction<'_, f64>> {
    let views = parts.iter().map(|part| MatRef::new(&part.data, [part.rows, part.cols]).expect("a matrix"));
    views.map(Direction::Matrix).collect()
}

/// Whole and block-diagonal, of sampled labels and of all: what PyTorch's dense solve gives.
#[test]
fn golden_natural_gradients() {
    for name in Case::NAMES {
        let net = Net::load(name);
        let (n, lambda) = (net.datapoints(), net.case.lambda);
        let (x, u) = (net.tensors("input"), net.parts("gradient"));
        for (kind, errors) in [("mc", "error_mc"), ("full", "error_full")] {
            let e = net.tensors(errors);
            let labels = e[0].shape[0] / n;
            for (blocks, suffix) in [(FisherBlocks::Whole, ""), (FisherBlocks::Diagonal, "_blockdiag")] {
                let tensor = format!("ng_{kind}{suffix}");
                let ranges: Vec<core::ops::Range<usize>> = match blocks {
                    FisherBlocks::Whole => core::iter::once(0..u.len()).collect(),
                    FisherBlocks::Diagonal => (0..u.len()).map(|l| l..l + 1).collect(),
                };
                let golden = net.parts(&tensor);
                let derived: Vec<Approx> = ranges
                    .iter()
                    .map(|range| {
                        let (g, gram) = net.gradients(errors, range.clone());
                        woodbury(&g, n, &Approx::exact_f64(flat(&u[range.clone()])), lambda, gram)
                    })
                    .collect();
                for (range, derived) in ranges.iter().zip(&derived) {
                    check(derived, &flat(&golden[range.clone()]), &format!("{name}: PyTorch's {tensor}, {range:?}"));
                }
                for par in isas().into_iter().chain([Par::threads(2)]) {
                    let options =
                        NaturalGradientOptions { damping: lambda, blocks, labels, ..NaturalGradientOptions::new(n) };
                    let mut optimizer = NaturalGradient::<f64>::new(&net.layers, options, par).expect("valid options");
                    optimizer.observe(&net.observations(&x, &e)).expect("finite");
                    optimizer.refresh().expect("definite");
                    let gradients: Vec<_> = u
                        .iter()
                        .map(|u| Gradient::Matrix(MatRef::new(&u.data, [u.rows, u.cols]).expect("a view")))
                        .collect();
                    let mut out = vec![f64::NAN; net.shapes().iter().map(|s| s[0] * s[1]).sum()];
                    optimizer.precondition(&mut split(&mut out, &net.shapes()), &gradients).expect("shapes agree");
                    let mut at = 0;
                    for (range, derived) in ranges.iter().zip(&derived) {
                        let part = Dense::from_slice(derived.value.rows, 1, &out[at..at + derived.value.rows]);
                        at += derived.value.rows;
                        check(derived, &part, &format!("{par:?}: {name}, {tensor}, {range:?}"));
                    }
                }
            }
        }
    }
}

/// `F u = G (G^T u)`, and `u^T F u`.
#[test]
fn golden_fisher_vector_products() {
    for name in Case::NAMES {
        let net = Net::load(name);
        let (n, u, x) = (net.datapoints(), net.parts("gradient"), net.tensors("input"));
        for (kind, errors) in [("mc", "error_mc"), ("full", "error_full")] {
            let (e, (g, _)) = (net.tensors(errors), net.gradients(errors, 0..u.len()));
            let column = Approx::exact_f64(flat(&u));
            let derived = g.transpose().matmul(&g.matmul(&column)).scaled(1.0 / n as f64);
            let golden = flat(&net.parts(&format!("fisher_{kind}_vector_product")));
            check(&derived, &golden, &format!("{name}, {kind}: PyTorch's"));
            let dots = g.matmul(&column).scaled(1.0 / (n as f64).sqrt());
            let form = dots.transpose().matmul(&dots);
            for par in isas().into_iter().chain([Par::threads(2)]) {
                let what = format!("{par:?}: {name}, {kind}");
                let batch = net.batch(&x, &e);
                let mut out = vec![f64::NAN; golden.rows];
                let mut parts = split(&mut out, &net.shapes());
                fisher_vector_product_alloc(&mut parts, Blend::set(1.0), &batch, &directions(&u), par).expect("valid");
                check(&derived, &Dense::from_slice(golden.rows, 1, &out), &what);
                let value = fisher_quadratic_form_alloc(&batch, &directions(&u), par).expect("valid");
                check(&form, &Dense::from_slice(1, 1, &[value]), &format!("{what}, quadratic form"));
            }
        }
    }
}
