//! The errors that the curvature is made of: of labels that the model itself would give.

use foof::labels::{Loss, Outputs, full_errors};
use foof::optim::{Activations, Observation};
use foof::{MatMut, MatRef, View};

use crate::Result;
use crate::architecture::Architecture;
use crate::network::{Errors, Inputs, Network, outputs_of};
use crate::products::Workspace;
use crate::random::{Purpose, Rng, rng};
use crate::task::Task;

/// Which labels of a model's distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// One of each image.
    Sampled,
    /// All, with errors weighted by `sqrt(p_c)`.
    All,
}

/// Labels for the first images of a mini-batch, and their errors in every layer.
pub struct Sampling {
    task: Task,
    rng: Rng,
    images: usize,
    /// Rows of errors for each image.
    count: usize,
    errors: Errors,
    /// Of all labels: `[images count, outputs]` of each layer; those of an image next to each other.
    all: Vec<Vec<f32>>,
    /// The same of the output, before they are backpropagated.
    output: Vec<f32>,
}

impl Sampling {
    pub fn new(
        task: Task,
        architecture: &Architecture,
        batch: usize,
        images: usize,
        labels: Labels,
        seed: u64,
    ) -> Self {
        let (outputs, all) = (architecture.outputs(), labels == Labels::All);
        let count = if all { outputs } else { 1 };
        let rows = if all { images * count } else { 0 };
        Self {
            task,
            rng: rng(seed, Purpose::Labels),
            images,
            count,
            errors: Errors::new(architecture, batch),
            all: architecture.maps.iter().map(|map| vec![0.0; rows * map.outputs()]).collect(),
            output: vec![0.0; rows * outputs],
        }
    }

    /// Rows of errors for each image.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Draws labels for the mini-batch in the network, and backpropagates their errors.
    pub fn draw(&mut self, network: &Network, workspace: &mut Workspace) -> Result {
        if self.all.iter().all(Vec::is_empty) {
            self.task.sample_errors(network, &mut self.rng, &mut self.errors);
            return network.backward(&mut self.errors, workspace);
        }
        let (images, count) = (self.images, self.count);
        let logits = MatRef::new(network.output(), [network.rows(), count])?.row_range(0..images);
        let out = MatMut::new(&mut self.output, [images * count, count])?;
        full_errors(out, Loss::SoftmaxCrossEntropy, Outputs::Logits(logits))?;
        for label in 0..count {
            let errors = self.errors.of_output().chunks_exact_mut(count);
            for (error, of_image) in errors.zip(self.output.chunks_exact(count * count)) {
                error.copy_from_slice(&of_image[label * count..(label + 1) * count]);
            }
            network.backward(&mut self.errors, workspace)?;
            for (number, all) in self.all.iter_mut().enumerate() {
                let from = self.errors.layer(number, images);
                let width = from.len() / images;
                for (all, from) in all.chunks_exact_mut(count * width).zip(from.chunks_exact(width)) {
                    all[label * width..(label + 1) * width].copy_from_slice(from);
                }
            }
        }
        Ok(())
    }

    /// What a layer shows of the images that labels were drawn for.
    pub fn observation<'a>(&'a self, layer: usize, inputs: Inputs<'a>) -> Result<Observation<'a, f32>> {
        let images = self.images.min(inputs.count());
        let rows = images * self.count;
        let errors = match self.all[layer].as_slice() {
            [] => self.errors.layer(layer, images),
            all => all,
        };
        let (read, errors): (Activations<'a, f32>, Activations<'a, f32>) = match inputs {
            Inputs::Dense { rows: read, .. } => {
                (read.row_range(0..images).into(), MatRef::new(errors, [rows, errors.len() / rows])?.into())
            }
            Inputs::Images { conv, images: read } => {
                let [_, channels, height, width] = read.shape();
                let pixels = read.memory().ok_or("the images are not contiguous")?;
                let read = View::new(pixels, [images, channels, height, width])?;
                (read.into(), outputs_of(conv, errors, rows)?.into())
            }
        };
        Ok(Observation::new(read).with_errors(errors))
    }
}
