//! A network of dense layers and convolutions whose memory is taken once, and which keeps what the optimisers feed on: each
//! layer's inputs, and the errors with respect to its outputs.

use foof::convolution::Conv;
use foof::{Blend, MatMut, MatRef, View, ViewMut};
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::Result;
use crate::activation::Activation;
use crate::architecture::{Architecture, Map};
use crate::products::{Images, ImagesMut, Workspace};
use crate::random::{Purpose, rng};

/// One layer: a linear map, followed by its activation. A bias is the last column of `W`; to a dense layer that has one, each input
/// row ends with a constant 1.
struct Layer {
    map: Map,
    activation: Activation,
    /// As `map.weight_shape()` says.
    weight: Vec<f32>,
    /// What the layer reads, `[batch, map.row()]`.
    input: Vec<f32>,
}

impl Layer {
    fn weight(&self) -> Result<MatRef<'_, f32>> {
        Ok(MatRef::new(&self.weight, self.map.weight_shape())?)
    }

    /// What the layer has read of `rows` images.
    fn inputs<'a>(map: &'a Map, input: &'a [f32], rows: usize) -> Result<Inputs<'a>> {
        Ok(match map {
            Map::Dense { inputs, .. } => {
                let rows_and_constant = MatRef::new(input, [rows, map.row()])?;
                Inputs::Dense { rows: rows_and_constant.submatrix(0..rows, 0..*inputs), rows_and_constant }
            }
            Map::Convolution(conv) => Inputs::Images { conv, images: inputs_of(conv, input, rows)? },
        })
    }
}

/// The spatial shape of images `[N, C, 1, H, W]`.
fn flat([n, c, _, h, w]: [usize; 5]) -> [usize; 4] {
    [n, c, h, w]
}

fn inputs_of<'a>(conv: &Conv, rows: &'a [f32], n: usize) -> Result<Images<'a>> {
    Ok(View::new(rows, flat(conv.input_shape(n)))?)
}

/// Of a convolution's outputs for `n` images, or their errors, the view `[n, o, H, W]`.
pub fn outputs_of<'a>(conv: &Conv, rows: &'a [f32], n: usize) -> Result<Images<'a>> {
    Ok(View::new(rows, flat(conv.output_shape(n)))?)
}

/// A convolution's outputs for `n` images, one in each row of `stride` numbers.
fn outputs_in<'a>(conv: &Conv, rows: &'a mut [f32], n: usize, stride: usize) -> Result<ImagesMut<'a>> {
    let shape = flat(conv.output_shape(n));
    let [_, _, h, w] = shape.map(|size| size as isize);
    Ok(ViewMut::strided(rows, 0, shape, [stride as isize, h * w, w, 1])?)
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
        let layer = |map: &Map| vec![0.0; batch * map.outputs()];
        Self { layers: architecture.maps.iter().map(layer).collect(), batch }
    }

    /// The errors of the network's output, from which those of the other layers follow.
    pub fn of_output(&mut self) -> &mut [f32] {
        self.layers.last_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// The errors of one layer for the first `rows` images, `[rows, outputs]`.
    pub fn layer(&self, number: usize, rows: usize) -> &[f32] {
        let errors = &self.layers[number];
        &errors[..rows * (errors.len() / self.batch)]
    }
}

/// One layer, for an optimiser to step.
pub struct LayerView<'a> {
    /// `[outputs, inputs (+ 1)]`, or `[channels, features (+ 1)]`.
    pub weight: &'a mut [f32],
    /// Rows and columns of the weight.
    pub shape: [usize; 2],
    pub inputs: Inputs<'a>,
    /// `[rows, outputs]`, or images of the outputs.
    pub errors: &'a [f32],
}

/// What a layer has read of a mini-batch.
#[derive(Clone, Copy)]
pub enum Inputs<'a> {
    Dense {
        /// `[rows, inputs]`, without the bias's constant.
        rows: MatRef<'a, f32>,
        /// `[rows, inputs (+ 1)]`, with it.
        rows_and_constant: MatRef<'a, f32>,
    },
    Images {
        conv: &'a Conv,
        /// `[rows, C, H, W]`.
        images: Images<'a>,
    },
}

impl Inputs<'_> {
    /// Images in the mini-batch.
    pub fn count(&self) -> usize {
        match self {
            Inputs::Dense { rows, .. } => rows.rows(),
            Inputs::Images { images, .. } => images.shape()[0],
        }
    }

    /// `out <- beta out + alpha U`: the mean gradient of the weight, accumulated in the product that forms it.
    pub fn add_gradient(
        &self,
        errors: &[f32],
        out: MatMut<'_, f32>,
        Blend { alpha, beta }: Blend<f32>,
        workspace: &mut Workspace,
    ) -> Result {
        match *self {
            Inputs::Dense { rows_and_constant: inputs, .. } => {
                let blend = Blend { alpha: alpha / inputs.rows() as f32, beta };
                let errors = MatRef::new(errors, [inputs.rows(), out.rows()])?;
                workspace.matmul(out, blend, errors.transpose(), inputs)
            }
            Inputs::Images { conv, images } => {
                let n = images.shape()[0];
                let blend = Blend { alpha: alpha / n as f32, beta };
                workspace.convolution_gradient(out, blend, outputs_of(conv, errors, n)?, images, conv)
            }
        }
    }
}

impl Network {
    /// A network for mini-batches of up to `batch` images. Its weights depend on the seed alone: `N(0, g / inputs)`,
    /// `g` being the gain of the hidden layers (Kaiming initialisation for ReLU), `inputs` those that one output sums; biases zero.
    pub fn new(architecture: &Architecture, batch: usize, seed: u64) -> Self {
        let mut rng = rng(seed, Purpose::Weights);
        let gain_squared = architecture.activations[0].gain_squared();
        let layer = |(&map, &activation): (&Map, &Activation)| {
            let ([rows, columns], inputs) = (map.weight_shape(), map.fan_in());
            let deviation = (gain_squared / inputs as f32).sqrt();
            let mut weight = vec![0.0; rows * columns];
            for row in weight.chunks_exact_mut(columns) {
                let mut sample = || deviation * rng.sample::<f32, _>(StandardNormal);
                row[..inputs].fill_with(&mut sample);
            }
            Layer { map, activation, weight, input: vec![1.0; batch * map.row()] }
        };
        let layers = architecture.maps.iter().zip(&architecture.activations);
        Self {
            layers: layers.map(layer).collect(),
            output: vec![0.0; batch * architecture.outputs()],
            outputs: architecture.outputs(),
            rows: 0,
        }
    }

    /// Takes over the weights of a network of the same architecture.
    pub fn copy_weights(&mut self, from: &Network) {
        for (layer, from) in self.layers.iter_mut().zip(&from.layers) {
            layer.weight.copy_from_slice(&from.weight);
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
        let rows = first.input.chunks_exact(first.map.row()).take(self.rows);
        rows.map(|row| &row[..first.map.inputs()])
    }

    /// Loads a mini-batch and computes the network's output.
    pub fn forward<'a>(
        &mut self,
        images: impl ExactSizeIterator<Item = &'a [f32]>,
        workspace: &mut Workspace,
    ) -> Result {
        self.rows = images.len();
        let first = &mut self.layers[0];
        for (row, image) in first.input.chunks_exact_mut(first.map.row()).zip(images) {
            row[..first.map.inputs()].copy_from_slice(image);
        }
        for number in 0..self.layers.len() {
            let (read, written) = self.layers.split_at_mut(number + 1);
            let layer = &read[number];
            let (out, stride) = match written.first_mut() {
                Some(next) => (&mut next.input, next.map.row()),
                None => (&mut self.output, self.outputs),
            };
            match &layer.map {
                Map::Dense { outputs, .. } => {
                    let view = MatMut::strided(out, 0, [self.rows, *outputs], [stride as isize, 1])?;
                    let input = MatRef::new(&layer.input, [self.rows, layer.map.row()])?;
                    workspace.matmul(view, Blend::set(1.0), input, layer.weight()?.transpose())?;
                }
                Map::Convolution(conv) => {
                    let view = outputs_in(conv, out, self.rows, stride)?;
                    workspace.convolve(view, inputs_of(conv, &layer.input, self.rows)?, layer.weight()?, conv)?;
                }
            }
            layer.activation.apply(&mut out[..self.rows * stride], stride, layer.map.outputs());
        }
        Ok(())
    }

    /// From the errors of the output, the errors of every layer. The output's own activation is linear.
    pub fn backward(&self, errors: &mut Errors, workspace: &mut Workspace) -> Result {
        for number in (1..self.layers.len()).rev() {
            let layer = &self.layers[number];
            let (written, read) = errors.layers.split_at_mut(number);
            let inputs = layer.map.inputs();
            let out = &mut written[number - 1][..self.rows * inputs];
            match &layer.map {
                Map::Dense { outputs, .. } => {
                    let after = MatRef::new(&read[0], [self.rows, *outputs])?;
                    let weight = layer.weight()?.submatrix(0..*outputs, 0..inputs);
                    workspace.matmul(MatMut::new(out, [self.rows, inputs])?, Blend::set(1.0), after, weight)?;
                }
                Map::Convolution(conv) => {
                    let after = outputs_of(conv, &read[0], self.rows)?;
                    let view = ViewMut::new(out, flat(conv.input_shape(self.rows)))?;
                    workspace.convolve_back(view, after, layer.weight()?, conv)?;
                }
            }
            self.layers[number - 1].activation.backpropagate(out, inputs, &layer.input, layer.map.row());
        }
        Ok(())
    }

    /// What each layer has read of the mini-batch.
    pub fn inputs(&self) -> impl Iterator<Item = Result<Inputs<'_>>> {
        self.layers.iter().map(|layer| Layer::inputs(&layer.map, &layer.input, self.rows))
    }

    /// The layers with their errors, for an optimiser to step.
    pub fn layers<'a>(&'a mut self, errors: &'a Errors) -> impl Iterator<Item = Result<LayerView<'a>>> {
        let rows = self.rows;
        let layers = self.layers.iter_mut().enumerate();
        layers.map(move |(number, Layer { map, weight, input, .. })| {
            let inputs = Layer::inputs(map, input, rows)?;
            Ok(LayerView { weight, shape: map.weight_shape(), inputs, errors: errors.layer(number, rows) })
        })
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
