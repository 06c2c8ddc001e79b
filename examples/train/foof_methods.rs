//! The second-order methods: what it takes to train a network of one's own with foof's optimisers.

use foof::layer::Layer;
use foof::optim::{
    FisherBlocks, Foof, FoofOptions, Gradient, Kfac, KfacOptions, NaturalGradient, NaturalGradientOptions, Observation,
    Optimizer, Preconditioner, Schedule, StepOptions,
};
use foof::{Blend, MatMut, MatRef};

use crate::Result;
use crate::architecture::{Architecture, Bias, Map};
use crate::methods::Method;
use crate::network::{Errors, Inputs, LayerView, Network};
use crate::products::Workspace;
use crate::sampling::{Labels, Sampling};
use crate::settings::Settings;
use crate::training::Problem;

/// Mini-batches observed before training, as in the paper.
const INITIAL_OBSERVATIONS: usize = 50;

/// FOOF: preconditions with the covariance of each layer's inputs.
pub fn foof(problem: &Problem, settings: &Settings) -> Result<Box<dyn Method>> {
    let options = FoofOptions {
        damping: settings.damping,
        factor_decay: settings.factor_decay,
        schedule: schedule(settings),
        step: step_options(settings),
        ..FoofOptions::default()
    };
    let optimizer = Foof::<f32>::new(&layers(&problem.architecture)?, options, problem.par)?;
    Ok(Box::new(Preconditioned { optimizer, sampling: None, gradients: gradients(&problem.architecture) }))
}

/// K-FAC: with the covariance of the errors too, for labels sampled from the model, which costs a second backward pass.
pub fn kfac(problem: &Problem, settings: &Settings, seed: u64) -> Result<Box<dyn Method>> {
    let options = KfacOptions {
        damping: settings.damping,
        factor_decay: settings.factor_decay,
        schedule: schedule(settings),
        step: step_options(settings),
        ..KfacOptions::default()
    };
    let optimizer = Kfac::<f32>::new(&layers(&problem.architecture)?, options, problem.par)?;
    let (batch, labels) = (problem.batch, Labels::Sampled);
    let sampling = Sampling::new(problem.task, &problem.architecture, batch, batch, labels, seed);
    Ok(Box::new(Preconditioned { optimizer, sampling: Some(sampling), gradients: gradients(&problem.architecture) }))
}

/// The exact natural gradient: the system `lambda I + G^T G` of each step's mini-batch, its own or a second one, is formed and factored before the step.
pub fn natural(
    problem: &Problem,
    settings: &Settings,
    seed: u64,
    blocks: FisherBlocks,
    labels: Labels,
) -> Result<Box<dyn Method>> {
    let Problem { task, architecture, batch, fisher_batch, .. } = problem;
    let sampling = Sampling::new(*task, architecture, *batch.max(fisher_batch), *fisher_batch, labels, seed);
    let defaults = NaturalGradientOptions::new(*fisher_batch);
    let options = NaturalGradientOptions {
        damping: settings.damping,
        blocks,
        labels: sampling.count(),
        schedule: Schedule { initial: 0, ..defaults.schedule },
        step: step_options(settings),
        ..defaults
    };
    let optimizer = NaturalGradient::<f32>::new(&layers(architecture)?, options, problem.par)?;
    Ok(Box::new(Preconditioned { optimizer, sampling: Some(sampling), gradients: gradients(architecture) }))
}

/// The network's layers as foof knows them. A convolution's geometry says whether it has a bias.
fn layers(architecture: &Architecture) -> Result<Vec<Layer>> {
    let layer = |map: &Map| match *map {
        Map::Dense { inputs, outputs, bias: Bias::With } => Ok(Layer::dense(inputs, outputs)?.with_bias()),
        Map::Dense { inputs, outputs, bias: Bias::Without } => Ok(Layer::dense(inputs, outputs)?),
        Map::Convolution(conv) => Ok(Layer::conv(conv)),
    };
    architecture.maps.iter().map(layer).collect()
}

/// Memory for the gradients that are formed: those of convolutions.
fn gradients(architecture: &Architecture) -> Vec<Vec<f32>> {
    let memory = |map: &Map| match map {
        Map::Dense { .. } => Vec::new(),
        Map::Convolution(_) => vec![0.0; map.weight_shape().iter().product()],
    };
    architecture.maps.iter().map(memory).collect()
}

/// When factors are observed and inverted.
fn schedule(settings: &Settings) -> Schedule {
    Schedule {
        period: settings.period,
        observe: settings.observe,
        initial: INITIAL_OBSERVATIONS,
        ..Schedule::default()
    }
}

fn step_options(settings: &Settings) -> StepOptions {
    StepOptions { learning_rate: settings.learning_rate, momentum: settings.momentum, ..StepOptions::default() }
}

/// One of foof's optimisers, with the errors that it observes, if it does.
struct Preconditioned<P> {
    optimizer: Optimizer<f32, P>,
    sampling: Option<Sampling>,
    /// Of each convolution `[o, f]`, with bias `[o, f + 1]`; of a dense layer nothing.
    gradients: Vec<Vec<f32>>,
}

/// What a layer shows to the optimiser: its inputs, and its errors where they are sampled.
fn observation<'a>(sampling: &'a Option<Sampling>, layer: usize, inputs: Inputs<'a>) -> Result<Observation<'a, f32>> {
    match (sampling, inputs) {
        (Some(sampling), _) => sampling.observation(layer, inputs),
        (None, Inputs::Dense { rows, .. }) => Ok(Observation::new(rows)),
        (None, Inputs::Images { images, .. }) => Ok(Observation::new(images)),
    }
}

/// Errors of a dense layer as `[n, outputs]`.
fn matrix(errors: &[f32], n: usize) -> Result<MatRef<'_, f32>> {
    Ok(MatRef::new(errors, [n, errors.len() / n])?)
}

impl<P: Preconditioner<f32>> Method for Preconditioned<P> {
    fn initial_observations(&self) -> usize {
        self.optimizer.schedule().initial
    }

    fn observe(&mut self, network: &Network, workspace: &mut Workspace) -> Result {
        if let Some(sampling) = &mut self.sampling {
            sampling.draw(network, workspace)?;
        }
        let layers = network.inputs().enumerate();
        let observations = layers.map(|(number, inputs)| observation(&self.sampling, number, inputs?));
        let observations: Vec<_> = observations.collect::<Result<_>>()?;
        Ok(self.optimizer.observe(&observations)?)
    }

    fn start(&mut self) -> Result {
        match self.initial_observations() {
            0 => Ok(()),
            _ => Ok(self.optimizer.refresh()?),
        }
    }

    fn step(
        &mut self,
        network: &mut Network,
        errors: &Errors,
        fisher: Option<&Network>,
        workspace: &mut Workspace,
    ) -> Result {
        let wanted = self.optimizer.wants_observation();
        if let Some(sampling) = self.sampling.as_mut().filter(|_| wanted) {
            sampling.draw(fisher.unwrap_or(network), workspace)?;
        }
        let scale = (network.rows() as f32).recip();
        let (mut weights, mut gradients, mut observations) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (layer, memory)) in network.layers(errors).zip(&mut self.gradients).enumerate() {
            let LayerView { weight, shape, inputs, errors } = layer?;
            weights.push(MatMut::new(weight, shape)?);
            gradients.push(match inputs {
                // The gradient (1/M) E^T X of a dense layer stays in its two factors, and is never formed.
                Inputs::Dense { rows, .. } => {
                    Gradient::LowRank { inputs: rows, errors: matrix(errors, rows.rows())?, scale }
                }
                Inputs::Images { .. } => {
                    inputs.add_gradient(errors, MatMut::new(memory, shape)?, Blend::set(1.0), workspace)?;
                    Gradient::Matrix(MatRef::new(memory, shape)?)
                }
            });
            if wanted && fisher.is_none() {
                observations.push(observation(&self.sampling, number, inputs)?);
            }
        }
        if let Some(fisher) = fisher.filter(|_| wanted) {
            for (number, inputs) in fisher.inputs().enumerate() {
                observations.push(observation(&self.sampling, number, inputs?)?);
            }
        }
        Ok(self.optimizer.step(&mut weights, &gradients, &observations)?)
    }
}
