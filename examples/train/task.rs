//! The problems: which network, which loss, and which labels the model itself would give.

use rand::RngExt;
use rand_distr::StandardNormal;

use crate::Result;
use crate::activation::Activation::{Linear, Relu, Tanh};
use crate::architecture::{Architecture, Bias};
use crate::data::Dataset;
use crate::network::{Errors, Network};
use crate::random::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Reconstruct images; squared error `|s - y|^2 / 2` to the image itself.
    Autoencoder,
    /// Tell digits apart; softmax cross-entropy.
    Classifier,
    /// The same with convolutions.
    ConvolutionalClassifier,
}

/// Sums over images.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    pub loss: f64,
    /// Images whose class is the most probable one; none when reconstructing.
    pub correct: usize,
}

impl Task {
    /// What the paper trains on such images, Hinton and Salakhutdinov's autoencoder or a plain ReLU classifier; or three convolutions, two of
    /// which halve the images.
    pub fn architecture(self, inputs: usize, classes: usize) -> Result<Architecture> {
        Ok(match self {
            Task::Autoencoder => Architecture::dense(
                &[inputs, 1000, 500, 250, 30, 250, 500, 1000, inputs],
                vec![Tanh, Tanh, Tanh, Linear, Tanh, Tanh, Tanh, Linear],
                Bias::With,
            ),
            Task::Classifier => {
                Architecture::dense(&[inputs, 1000, 1000, 1000, classes], vec![Relu, Relu, Relu, Linear], Bias::Without)
            }
            Task::ConvolutionalClassifier => {
                let side = inputs.isqrt();
                if side * side != inputs {
                    return Err(
                        format!("images of {inputs} pixels are not square, as the convolutions need them").into()
                    );
                }
                Architecture::convolutional(side, &[(32, 1), (64, 2), (128, 2)], classes)?
            }
        })
    }

    pub fn title(self) -> &'static str {
        match self {
            Task::Autoencoder => "autoencoder",
            Task::Classifier => "classifier",
            Task::ConvolutionalClassifier => "convolutional classifier",
        }
    }

    pub fn classifies(self) -> bool {
        self != Task::Autoencoder
    }

    /// The score of the mini-batch in the network, whose images are those of `numbers`; leaves the errors `dL_n/ds_n`
    /// of its output in `errors`.
    pub fn score(
        self,
        network: &Network,
        data: &Dataset,
        numbers: impl Iterator<Item = usize>,
        errors: &mut Errors,
    ) -> Score {
        let outputs = network.outputs();
        let rows = network.output().chunks_exact(outputs);
        let rows = rows.zip(errors.of_output().chunks_exact_mut(outputs));
        let mut score = Score::default();
        match self {
            Task::Autoencoder => {
                for ((output, error), image) in rows.zip(network.images()) {
                    score.loss += reconstruction(output, image, error);
                }
            }
            Task::Classifier | Task::ConvolutionalClassifier => {
                for ((output, error), number) in rows.zip(numbers) {
                    let label = usize::from(data.labels[number]);
                    score.loss += softmax(output, error) - f64::from(output[label]);
                    score.correct += usize::from(error.iter().all(|&p| p <= error[label]));
                    error[label] -= 1.0;
                }
            }
        }
        score
    }

    /// The errors of the output for labels sampled from the model (the Monte Carlo Fisher): a target from `N(s, I)`, or
    /// a class from the softmax of `s`.
    pub fn sample_errors(self, network: &Network, rng: &mut Rng, errors: &mut Errors) {
        let outputs = network.outputs();
        match self {
            Task::Autoencoder => {
                let errors = &mut errors.of_output()[..network.output().len()];
                errors.fill_with(|| rng.sample(StandardNormal));
            }
            Task::Classifier | Task::ConvolutionalClassifier => {
                let rows = network.output().chunks_exact(outputs);
                for (output, error) in rows.zip(errors.of_output().chunks_exact_mut(outputs)) {
                    softmax(output, error);
                    let mut left: f32 = rng.random();
                    let reached = |&p: &f32| {
                        left -= p;
                        left < 0.0
                    };
                    // The probabilities may sum to a little less than 1: then the last class.
                    let label = error.iter().position(reached).unwrap_or(outputs - 1);
                    error[label] -= 1.0;
                }
            }
        }
    }
}

/// `|s - y|^2 / 2`, and the error `s - y`.
fn reconstruction(output: &[f32], image: &[f32], error: &mut [f32]) -> f64 {
    for ((error, &s), &y) in error.iter_mut().zip(output).zip(image) {
        *error = s - y;
    }
    // Lanes of f32 sums, so that the loop can be vectorised; they are short.
    let mut lanes = [0.0f32; 16];
    for piece in error.chunks(lanes.len()) {
        for (lane, &e) in lanes.iter_mut().zip(piece) {
            *lane += e * e;
        }
    }
    0.5 * lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>()
}

/// `ln sum exp(s)`; leaves the probabilities in `probabilities`.
fn softmax(output: &[f32], probabilities: &mut [f32]) -> f64 {
    let largest = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f32;
    for (p, &s) in probabilities.iter_mut().zip(output) {
        *p = (s - largest).exp();
        sum += *p;
    }
    probabilities.iter_mut().for_each(|p| *p /= sum);
    f64::from(largest) + f64::from(sum).ln()
}
