//! What the four methods have in common, and the two first-order ones.

use foof::{Blend, MatMut};
use rayon::prelude::*;

use crate::Result;
use crate::architecture::Architecture;
use crate::network::{Errors, LayerView, Network};
use crate::products::Workspace;
use crate::settings::Settings;

/// One rule for stepping the weights.
pub trait Method {
    /// How many mini-batches to observe before training.
    fn initial_observations(&self) -> usize {
        0
    }

    /// Takes a mini-batch's activations into account, before training.
    fn observe(&mut self, _network: &Network, _workspace: &mut Workspace) -> Result {
        Ok(())
    }

    /// Ends the observations before training.
    fn start(&mut self) -> Result {
        Ok(())
    }

    /// Steps the weights, given the errors of the mini-batch in the network. `fisher`, if there is one, has the same weights and the mini-batch
    /// that the Fisher matrix is to be made of.
    fn step(
        &mut self,
        network: &mut Network,
        errors: &Errors,
        fisher: Option<&Network>,
        workspace: &mut Workspace,
    ) -> Result;
}

/// A chunk of an elementwise pass: its three or four streams fit the second-level cache.
const CHUNK: usize = 32_768;

/// Gradient descent with momentum: `V <- mu V + U`, `W <- W - eta V`.
pub struct Sgd {
    learning_rate: f32,
    momentum: f32,
    velocity: Vec<Vec<f32>>,
}

impl Sgd {
    pub fn new(architecture: &Architecture, settings: &Settings) -> Self {
        Self {
            learning_rate: settings.learning_rate as f32,
            momentum: settings.momentum as f32,
            velocity: architecture.zeros(),
        }
    }
}

impl Method for Sgd {
    fn step(
        &mut self,
        network: &mut Network,
        errors: &Errors,
        _fisher: Option<&Network>,
        workspace: &mut Workspace,
    ) -> Result {
        for (layer, velocity) in network.layers(errors).zip(&mut self.velocity) {
            let LayerView { weight, shape, inputs, errors } = layer?;
            if self.momentum == 0.0 {
                let blend = Blend::add(-self.learning_rate);
                inputs.add_gradient(errors, MatMut::new(weight, shape)?, blend, workspace)?;
                continue;
            }
            let blend = Blend { alpha: 1.0, beta: self.momentum };
            inputs.add_gradient(errors, MatMut::new(velocity, shape)?, blend, workspace)?;
            let chunks = weight.par_chunks_mut(CHUNK).zip(velocity.par_chunks(CHUNK));
            chunks.for_each(|(weight, velocity)| {
                for (w, &v) in weight.iter_mut().zip(velocity) {
                    *w -= self.learning_rate * v;
                }
            });
        }
        Ok(())
    }
}

/// Adam (Kingma and Ba 2015) with its usual constants; the option `--momentum` is its `beta_1`.
pub struct Adam {
    learning_rate: f32,
    first_decay: f32,
    steps: i32,
    /// Gradient, first and second moment of each layer.
    layers: Vec<[Vec<f32>; 3]>,
}

impl Adam {
    const SECOND_DECAY: f32 = 0.999;
    const EPSILON: f32 = 1e-8;

    pub fn new(architecture: &Architecture, settings: &Settings) -> Self {
        let layers = architecture.zeros().into_iter().map(|zeros| [zeros.clone(), zeros.clone(), zeros]);
        Self {
            learning_rate: settings.learning_rate as f32,
            first_decay: settings.momentum as f32,
            steps: 0,
            layers: layers.collect(),
        }
    }
}

impl Method for Adam {
    fn step(
        &mut self,
        network: &mut Network,
        errors: &Errors,
        _fisher: Option<&Network>,
        workspace: &mut Workspace,
    ) -> Result {
        self.steps += 1;
        let (beta_1, beta_2) = (self.first_decay, Self::SECOND_DECAY);
        // m / (1 - beta_1^t) and v / (1 - beta_2^t), with the corrections taken out of the loop.
        let rate = self.learning_rate / (1.0 - beta_1.powi(self.steps));
        let correction = (1.0 - beta_2.powi(self.steps)).recip();
        for (layer, [gradient, first, second]) in network.layers(errors).zip(&mut self.layers) {
            let LayerView { weight, shape, inputs, errors } = layer?;
            inputs.add_gradient(errors, MatMut::new(gradient, shape)?, Blend::set(1.0), workspace)?;
            weight
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks(CHUNK))
                .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
                .for_each(|((weight, gradient), (first, second))| {
                    let moments = first.iter_mut().zip(second);
                    for ((w, &g), (m, v)) in weight.iter_mut().zip(gradient).zip(moments) {
                        *m = beta_1 * *m + (1.0 - beta_1) * g;
                        *v = beta_2 * *v + (1.0 - beta_2) * (g * g);
                        *w -= rate * *m / ((correction * *v).sqrt() + Self::EPSILON);
                    }
                });
        }
        Ok(())
    }
}
