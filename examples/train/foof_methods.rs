//! The two second-order methods: what it takes to train a network of one's own with foof's optimisers.

use foof::layer::Layer;
use foof::optim::{Foof, FoofOptions, Gradient, Kfac, KfacOptions, Observation, Schedule, StepOptions};
use foof::{MatMut, Par};

use crate::Result;
use crate::matmul::Workspace;
use crate::methods::Method;
use crate::network::{Architecture, Bias, Errors, LayerView, Network};
use crate::random::{Purpose, Rng, rng};
use crate::settings::Settings;
use crate::task::Task;

/// Mini-batches observed before training, as in the paper.
const INITIAL_OBSERVATIONS: usize = 50;

/// The network's layers as foof knows them: dense, with a bias or without.
fn layers(architecture: &Architecture) -> Result<Vec<Layer>> {
    let layer = |(inputs, outputs)| {
        let dense = Layer::dense(inputs, outputs)?;
        Ok(match architecture.bias {
            Bias::With => dense.with_bias(),
            Bias::Without => dense,
        })
    };
    architecture.layers().map(layer).collect()
}

fn schedule(settings: &Settings) -> Schedule {
    Schedule {
        period: settings.period,
        observe: settings.observe,
        initial: INITIAL_OBSERVATIONS,
        ..Schedule::default()
    }
}

fn step_options(settings: &Settings) -> StepOptions<f32> {
    StepOptions {
        learning_rate: settings.learning_rate,
        momentum: settings.momentum,
        ..StepOptions::default()
    }
}

/// FOOF needs nothing but the layers' inputs.
pub struct FoofMethod {
    optimizer: Foof<f32>,
    errors: Errors,
}
