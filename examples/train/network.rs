//! A multi-layer perceptron whose memory is taken once, and which keeps what the optimisers feed on: each layer's
//! inputs, and the errors with respect to its outputs.

use foof::{MatMut, MatRef};
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::Result;
use crate::activation::Activation;
use crate::matmul::Workspace;
use crate::random::{Purpose, rng};

/// Whether layers have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    Without,
    With,
}

/// What a network looks like.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// Widths from the input to the output.
    pub widths: Vec<usize>,
    /// One activation a layer.
    pub activations: Vec<Activation>,
    pub bias: Bias,
}

impl Architecture {
    /// Inputs and outputs of each layer.
    pub fn layers(&self) -> impl Iterator<Item = (usize, usize)> {
        self.widths.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Sizes `[m, n, k]` of the products that training takes, for the workspace.
    pub fn products(&self, batch: usize) -> Vec<[usize; 3]> {
        self.layers()
            .map(|(inputs, outputs)| (inputs + self.extra(), outputs))
            .flat_map(|(i, o)| [[batch, o, i], [batch, i, o], [o, i, batch]])
            .collect()
    }

    pub fn outputs(&self) -> usize {
        self.widths.last().copied().unwrap_or(0)
    }

    /// Rows and columns of each layer's weight.
    pub fn weights(&self) -> impl Iterator<Item = [usize; 2]> {
        self.layers().map(|(inputs, outputs)| [outputs, inputs + self.extra()])
    }

    fn extra(&self) -> usize {
        usize::from(self.bias == Bias::With)
    }
}

/// One layer: `s = W x`, followed by its activation. With a bias, `W` has one column more, the last, and each input row
/// ends with a constant 1.
struct Layer {
    inputs: usize,
    outputs: usize,
    activation: Activation,
    /// `[outputs, stride]`, `stride` being `inputs`, or one more with a bias.
    weight: Vec<f32>,
    stride: usize,
    /// What the layer reads, `[batch, stride]`.
    input: Vec<f32>,
}

impl Layer {
    fn view<'a>(&'a mut self, errors: MatRef<'a, f32>) -> Result<LayerView<'a>> {
        let inputs_and_constant = MatRef::new(&self.input, [errors.rows(), self.stride])?;
        Ok(LayerView {
            shape: [self.outputs, self.stride],
            weight: &mut self.weight,
            inputs: inputs_and_constant.submatrix(0..errors.rows(), 0..self.inputs),
            inputs_and_constant,
            errors,
        })
    }
}

/// The weights, and the activations of one mini-batch.
pub struct Network {
    layers: Vec<Layer>,
    /// `[batch, outputs]`.
    output: Vec<f32>,
    outputs: usize,
    /// Images in the mini-batch last loaded.
    rows: usize,
}

/// Errors `dL_n/ds_n` of each layer's outputs for the images of a mini-batch, `[batch, outputs]` a layer.
pub struct Errors {
    layers: Vec<Vec<f32>>,
    batch: usize,
}

impl Errors {
    pub fn new(architecture: &Architecture, batch: usize) -> Self {
        let layer = |(_, outputs)| vec![0.0; batch * outputs];
        Self { layers: architecture.layers().map(layer).collect(), batch }
    }

    /// The errors of the network's output, from which those of the other layers follow.
    pub fn of_output(&mut self) -> &mut [f32] {
        self.layers.last_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// The errors of one layer for the first `rows` images, `[rows, outputs]`.
    pub fn layer(&self, number: usize, rows: usize) -> Result<MatRef<'_, f32>> {
        let errors = &self.layers[number];
        Ok(MatRef::new(errors, [rows, errors.len() / self.batch])?)
    }
}

/// One layer seen by an optimiser.
pub struct LayerView<'a> {
    /// `[outputs, inputs (+ 1)]`.
    pub weight: &'a mut [f32],
    /// `[rows, inputs]`, without the bias's constant.
    pub inputs: MatRef<'a, f32>,
    /// `[rows, inputs (+ 1)]`, with it.
    pub inputs_and_constant: MatRef<'a, f32>,
    /// `[rows, outputs]`.
    pub errors: MatRef<'a, f32>,
    /// Rows and columns of the weight.
    pub shape: [usize; 2],
}

impl Network {
    /// A network for mini-batches of up to `batch` images. Its weights depend on the seed alone: `N(0, g / inputs)`,
    /// `g` being the gain of the hidden layers (Kaiming initialisation for ReLU), biases zero.
    pub fn new(architecture: &Architecture, batch: usize, seed: u64) -> Self {
        let mut rng = rng(seed, Purpose::Weights);
        let gain_squared = architecture.activations[0].gain_squared();
        let layer = |((inputs, outputs), &activation): ((usize, usize), &Activation)| {
            let stride = inputs + architecture.extra();
            let deviation = (gain_squared / inputs as f32).sqrt();
            let mut weight = vec![0.0; outputs * stride];
            for row in weight.chunks_exact_mut(stride) {
                let mut sample = || deviation * rng.sample::<f32, _>(StandardNormal);
                row[..inputs].fill_with(&mut sample);
            }
            Layer { inputs, outputs, activation, weight, stride, input: vec![1.0; batch * stride] }
        };
        let layers = architecture.layers().zip(&architecture.activations);
        Self {
            layers: layers.map(layer).collect(),
            output: vec![0.0; batch * architecture.outputs()],
            outputs: architecture.outputs(),
            rows: 0,
        }
    }

    /// Images in the mini-batch last loaded.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Outputs an image.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The output for the mini-batch, `[rows, outputs]`.
    pub fn output(&self) -> &[f32] {
        &self.output[..self.rows * self.outputs]
    }

    /// The images of the mini-batch.
    pub fn images(&self) -> impl Iterator<Item = &[f32]> {
        let first = &self.layers[0];
        let rows = first.input.chunks_exact(first.stride).take(self.rows);
        rows.map(|row| &row[..first.inputs])
    }

    /// Loads a mini-batch and computes the network's output.
    pub fn forward<'a>(
        &mut self,
        images: impl ExactSizeIterator<Item = &'a [f32]>,
        workspace: &mut Workspace,
    ) -> Result {
        self.rows = images.len();
        let first = &mut self.layers[0];
        for (row, image) in first.input.chunks_exact_mut(first.stride).zip(images) {
            row[..first.inputs].copy_from_slice(image);
        }
        for number in 0..self.layers.len() {
            let (read, written) = self.layers.split_at_mut(number + 1);
            let layer = &read[number];
            let (out, stride) = match written.first_mut() {
                Some(next) => (&mut next.input, next.stride),
                None => (&mut self.output, layer.outputs),
            };
            let shape = [self.rows, layer.outputs];
            let view = MatMut::strided(out, 0, shape, [stride as isize, 1])?;
            let input = MatRef::new(&layer.input, [self.rows, layer.stride])?;
            let weight = MatRef::new(&layer.weight, [layer.outputs, layer.stride])?;
            workspace.matmul(view, 1.0, input, weight.transpose(), 0.0)?;
            layer.activation.apply(&mut out[..self.rows * stride], stride, layer.outputs);
        }
        Ok(())
    }

    /// From the errors of the output, the errors of every layer. The output's own activation is linear.
    pub fn backward(&self, errors: &mut Errors, workspace: &mut Workspace) -> Result {
        for number in (1..self.layers.len()).rev() {
            let layer = &self.layers[number];
            let (written, read) = errors.layers.split_at_mut(number);
            let out = &mut written[number - 1][..self.rows * layer.inputs];
            let after = MatRef::new(&read[0], [self.rows, layer.outputs])?;
            let shape = [layer.outputs, layer.inputs];
            let weight = MatRef::strided(&layer.weight, 0, shape, [layer.stride as isize, 1])?;
            let view = MatMut::new(out, [self.rows, layer.inputs])?;
            workspace.matmul(view, 1.0, after, weight, 0.0)?;
            let before = &self.layers[number - 1];
            before.activation.backpropagate(out, layer.inputs, &layer.input, layer.stride);
        }
        Ok(())
    }

    /// What each layer reads for the mini-batch, `[rows, inputs]`, without the bias's constant.
    pub fn inputs(&self) -> impl Iterator<Item = Result<MatRef<'_, f32>>> {
        self.layers.iter().map(|layer| {
            let strides = [layer.stride as isize, 1];
            Ok(MatRef::strided(&layer.input, 0, [self.rows, layer.inputs], strides)?)
        })
    }

    /// The layers with their errors, for an optimiser to step.
    pub fn layers<'a>(&'a mut self, errors: &'a Errors) -> impl Iterator<Item = Result<LayerView<'a>>> {
        let rows = self.rows;
        let layers = self.layers.iter_mut().enumerate();
        layers.map(move |(number, layer)| layer.view(errors.layer(number, rows)?))
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
