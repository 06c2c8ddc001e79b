//! A multilayer perceptron by hand: tanh hidden layers, softmax cross-entropy, one datapoint per row.

use crate::Dense;
use crate::approx::Approx;
use crate::fisher;

/// What one forward and backward pass gives for each layer.
pub struct Pass {
    /// Layer inputs `[N, i]`, without the constant 1 of a bias.
    pub inputs: Vec<Approx>,
    /// Errors `dL_n/ds_n`, `[N, o]`, each datapoint's loss its own (not divided by `N`).
    pub errors: Vec<Approx>,
    /// Softmax of the last pre-activation, `[N, classes]`.
    pub probabilities: Approx,
}

/// Whether a layer's weight has the bias as its last column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// `W` is `[o, i]`.
    Without,
    /// `W` is `[o, i + 1]`.
    With,
}

/// Inputs and errors of every layer for the cross-entropy of `labels`.
///
/// `e = p - onehot(label)` at the output; below, `e_l = (e_(l+1) W_(l+1)) ⊙ (1 - tanh^2)`, without the bias column.
pub fn pass(weights: &[Approx], bias: Bias, x: &Approx, labels: &[usize]) -> Pass {
    let mut inputs = vec![x.clone()];
    let mut last = x.clone();
    for (l, w) in weights.iter().enumerate() {
        let s = match bias {
            Bias::Without => last.matmul(&w.transpose()),
            Bias::With => last.with_one().matmul(&w.transpose()),
        };
        last = s;
        if l + 1 < weights.len() {
            last = tanh(&last);
            inputs.push(last.clone());
        }
    }
    let probabilities = softmax(&last);
    let classes = probabilities.value.cols;
    let minus_onehot = Dense::from_fn(labels.len(), classes, |n, c| if labels[n] == c { -1.0 } else { 0.0 });
    let output = probabilities.plus(&Approx::exact(minus_onehot, x.format));
    let mut errors = vec![output];
    for l in (1..weights.len()).rev() {
        let hidden = &inputs[l];
        let back = errors[0].matmul(&weights[l].left(hidden.value.cols));
        errors.insert(0, back.hadamard(&tanh_slope(hidden)));
    }
    Pass { inputs, errors, probabilities }
}

impl Pass {
    /// The mean gradient `(1/N) E^T X` of layer `l`, `[o, i]` or `[o, i + 1]`.
    pub fn mean_gradient(&self, l: usize, bias: Bias) -> Approx {
        let x = match bias {
            Bias::Without => self.inputs[l].clone(),
            Bias::With => self.inputs[l].with_one(),
        };
        let n = x.value.rows as f64;
        self.errors[l].transpose().matmul(&x).scaled(1.0 / n)
    }

    /// Every datapoint's gradient over all layers, `[N, P]`, for a network without biases.
    ///
    /// Each row of a layer is `e_n x_n^T`, so the Frobenius norms of its parts bound the error: one rounding for each entry.
    pub fn gradients(&self) -> Approx {
        let layers: Vec<Dense> = self
            .inputs
            .iter()
            .zip(&self.errors)
            .map(|(x, e)| {
                let rows = |m: &Approx| fisher::datapoints(&m.value, 1);
                fisher::gradients(&rows(x), &rows(e))
            })
            .collect();
        let error =
            |(x, e): (&Approx, &Approx)| e.error * x.norm() + e.norm() * x.error + x.format.unit * e.norm() * x.norm();
        let error = self.inputs.iter().zip(&self.errors).map(error).sum();
        Approx::exact(fisher::concatenated(&layers), self.inputs[0].format).with_error(error)
    }
}

/// The hyperbolic tangent, of slope at most 1, in a library accurate to two units in the last place (four `u`).
fn tanh(s: &Approx) -> Approx {
    let value = s.value.map(f64::tanh);
    let error = s.error + 4.0 * s.format.unit * value.frobenius();
    Approx::exact(value, s.format).with_error(error)
}

/// `1 - y^2` of `y = tanh(s)`: moves by at most `2 |dy|`, and two operations on numbers of at most 1 round.
fn tanh_slope(y: &Approx) -> Approx {
    let rounding = y.format.gamma(2) * (y.value.data.len() as f64).sqrt();
    Approx::exact(y.value.map(|y| 1.0 - y * y), y.format).with_error(2.0 * y.error + rounding)
}

/// The softmax of each row.
///
/// It moves by at most `|ds|` (its Jacobian `diag(p) - p p^T` has norm at most 1/2). As `exp` of a log-softmax, with `R`
/// the largest `|s - max s|`, `C` classes, and `exp` and `log` accurate to one unit in the last place (two `u`): `R + C + 2`
/// for the sum of exponentials, `2 log C` for its logarithm, `2 R + log C` for the two subtractions, 2 for the last
/// `exp`; the direct quotient takes fewer.
fn softmax(s: &Approx) -> Approx {
    let (rows, classes) = (s.value.rows, s.value.cols);
    let top = |n: usize| s.value.row(n).iter().copied().fold(f64::MIN, f64::max);
    let shifted = Dense::from_fn(rows, classes, |n, c| (s.value[(n, c)] - top(n)).exp());
    let sums: Vec<f64> = (0..rows).map(|n| shifted.row(n).iter().sum()).collect();
    let value = Dense::from_fn(rows, classes, |n, c| shifted[(n, c)] / sums[n]);
    let c = classes as f64;
    let range = 2.0 * s.max_abs();
    let roundings = (3.0 * range + c + 3.0 * c.ln() + 4.0).ceil() as usize;
    let error = s.error + s.format.gamma(roundings) * value.frobenius();
    Approx::exact(value, s.format).with_error(error)
}
