//! The golden networks `mlp`, `logistic` and `cnn` as batches of unfolded inputs and errors, layer by layer.

use crate::Dense;
use crate::approx::Approx;
use crate::bounds::F64;
use crate::fisher::{concatenated, datapoints, gradients, stacked, with_one};
use crate::golden::Golden;
use crate::network::Bias;
use crate::unfold::{Convolution, Order, group, positions_first};

/// A golden network. A layer's blocks are its groups of channels: one, except for a grouped convolution.
pub struct Case {
    /// Its file.
    pub golden: Golden,
    /// The damping of every step in it.
    pub lambda: f64,
    /// Whether its layers have biases.
    pub bias: Bias,
    /// The geometry of each layer; `None` is a dense layer.
    pub layers: Vec<Option<Convolution>>,
}

/// One layer's batch as matrices `[T, features]`, indexed by block and datapoint.
pub type Blocks = Vec<Vec<Dense>>;

impl Case {
    /// The names of all cases.
    pub const NAMES: [&str; 3] = ["mlp", "logistic", "cnn"];

    /// Loads `mlp`, `logistic` or `cnn`.
    pub fn load(name: &str) -> Self {
        let golden = Golden::load(name);
        let mut layers = vec![None; golden.layers()];
        if name == "cnn" {
            for (layer, convolution) in layers.iter_mut().zip(cnn()) {
                *layer = Some(convolution);
            }
        }
        let bias = match name {
            "mlp" => Bias::With,
            _ => Bias::Without,
        };
        Self { lambda: golden.scalar("lambda"), golden, bias, layers }
    }

    /// The weight of layer `l`, `[o, i]`.
    pub fn weight(&self, l: usize) -> Dense {
        self.golden.matrix(&format!("weight.{l}"))
    }

    /// How many blocks layer `l` has.
    pub fn groups(&self, l: usize) -> usize {
        self.layers[l].map_or(1, |c| c.groups)
    }

    /// A tensor shaped like the weight of layer `l` (a gradient, a step), cut into the layer's blocks of rows.
    pub fn like_weight(&self, tensor: &str, l: usize) -> Vec<Dense> {
        let all = self.golden.matrix(&format!("{tensor}.{l}"));
        let rows = all.rows / self.groups(l);
        datapoints(&all, rows)
    }

    /// The inputs of layer `l`, `tensor` being `input` or `gradient_input`: patches for a convolution, with the constant 1
    /// for a bias.
    pub fn inputs(&self, tensor: &str, l: usize) -> Blocks {
        let name = format!("{tensor}.{l}");
        let rows = self.golden.matrix(&name);
        let Some(convolution) = self.layers[l] else {
            let x = datapoints(&rows, 1);
            return vec![match self.bias {
                Bias::With => with_one(&x),
                Bias::Without => x,
            }];
        };
        let shape = self.golden.shape(&name);
        let size = [1, shape[2], shape[3]];
        let patches = |g| convolution.unfold(&rows.data, shape[1], size, g, Order::ChannelTaps);
        (0..convolution.groups).map(patches).collect()
    }

    /// The errors of layer `l`, `tensor` being `error_mc`, `error_full` or `gradient_error`.
    pub fn errors(&self, tensor: &str, l: usize) -> Blocks {
        let name = format!("{tensor}.{l}");
        let rows = self.golden.matrix(&name);
        let channels = self.golden.shape(&name)[1];
        let e = (0..rows.rows).map(|n| positions_first(rows.row(n), channels)).collect();
        by_group(e, self.groups(l))
    }

    /// How far the stored input of each layer, or another evaluation of it, may be from exact: the generator took
    /// activations from a pass over the batch and gradients from passes over single datapoints, whose sums need not be
    /// ordered alike.
    ///
    /// A pre-activation `X W^T` moves by `|W| |dX|` and rounds by `gamma_i |W| |X|` (norms of the unfolded inputs, where
    /// each entry of an image stands at most `kh kw` times); tanh has slope at most 1 and is taken to be accurate to two units
    /// in the last place, four `u`.
    pub fn input_errors(&self, tensor: &str) -> Vec<f64> {
        let mut errors = vec![0.0];
        for l in 0..self.layers.len() - 1 {
            let (w, x) = (self.weight(l), self.input_norm(tensor, l));
            let copies = self.layers[l].map_or(1, |c| c.kernel.iter().product()) as f64;
            let propagated = w.frobenius() * copies.sqrt() * errors[l];
            let rounding = F64.gamma(w.cols) * w.frobenius() * x;
            let output = self.golden.matrix(&format!("{tensor}.{}", l + 1));
            errors.push(propagated + rounding + 4.0 * F64.unit * output.frobenius());
        }
        errors
    }

    fn input_norm(&self, tensor: &str, l: usize) -> f64 {
        let squares = self.inputs(tensor, l).into_iter().flatten();
        squares.map(|x| x.frobenius().powi(2)).sum::<f64>().sqrt()
    }

    /// The gradients of layer `l` for every row of errors, `[R, P_l]`. The full Fisher has several rows, one for each
    /// label, per datapoint.
    ///
    /// Off by at most `|E| (|dX| + gamma_(T+3) |X|)`: a sum over positions, a product, and the scaling by `sqrt(p_c)` of
    /// either the errors or the gradient.
    pub fn layer_gradients(&self, inputs: &str, errors: &str, l: usize) -> Approx {
        let (x, e) = (self.inputs(inputs, l), self.errors(errors, l));
        let labels = e[0].len() / x[0].len();
        let repeat = |x: &Vec<Dense>| -> Vec<Dense> { (0..x.len() * labels).map(|r| x[r / labels].clone()).collect() };
        let blocks: Vec<Dense> = x.iter().zip(&e).map(|(x, e)| gradients(&repeat(x), e)).collect();
        let positions = x[0][0].rows;
        let e_norm = stacked(&e.concat()).frobenius();
        let x_norm = self.input_norm(inputs, l) * (labels as f64).sqrt();
        let moved = self.input_errors(inputs)[l] * (labels as f64).sqrt();
        Approx::exact_f64(concatenated(&blocks)).with_error(e_norm * (moved + F64.gamma(positions + 3) * x_norm))
    }

    /// The gradients of all layers side by side, `[R, P]`.
    pub fn all_gradients(&self, inputs: &str, errors: &str) -> Approx {
        let layers: Vec<Approx> = (0..self.layers.len()).map(|l| self.layer_gradients(inputs, errors, l)).collect();
        let values: Vec<Dense> = layers.iter().map(|g| g.value.clone()).collect();
        let error = layers.iter().map(|g| g.error).sum();
        Approx::exact_f64(concatenated(&values)).with_error(error)
    }

    /// A tensor shaped like all weights, flattened and concatenated: `[P, 1]`.
    pub fn flat(&self, tensor: &str) -> Dense {
        let layers: Vec<f64> =
            (0..self.layers.len()).flat_map(|l| self.golden.values(&format!("{tensor}.{l}"))).collect();
        Dense::from_slice(layers.len(), 1, &layers)
    }
}

/// The convolutions of the golden `cnn`, before its dense layer.
fn cnn() -> [Convolution; 3] {
    let padded = Convolution { padding: [[0; 2], [1; 2], [1; 2]], ..Convolution::two([3, 3]) };
    let strided = Convolution { stride: [1, 2, 2], groups: 2, ..padded };
    let dilated = Convolution { padding: [[0; 2], [0; 2], [1; 2]], dilation: [1, 1, 2], ..Convolution::two([3, 2]) };
    [padded, strided, dilated]
}

/// Each datapoint's columns cut into groups: `[group][datapoint]`.
fn by_group(batch: Vec<Dense>, groups: usize) -> Blocks {
    (0..groups).map(|g| batch.iter().map(|rows| group(rows, g, groups)).collect()).collect()
}
