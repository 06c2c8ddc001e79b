//! Labels: the errors `E = dL_n/ds_n` of a network's output `s` `[N, C]` that the curvature is made of.
//!
//! | curvature | labels | errors | here |
//! |---|---|---|---|
//! | empirical Fisher | the data's | one row for each datapoint | [`label_errors`] |
//! | Monte Carlo Fisher | one sampled from the model for each input | one row | [`sampled_errors`] |
//! | full Fisher, GGN | all of them, weighted by `sqrt(p_c)` | `C` rows next to each other | [`full_errors`] |
//!
//! Errors are those of each datapoint's own loss, not divided by `N`. Backpropagated to all layers, they are what
//! [`Observation::with_errors`](crate::optim::Observation::with_errors) takes. For the losses here the output
//! is the natural parameter of the labels' distribution, so the full Fisher is the generalised Gauss-Newton matrix (Martens, "New insights
//! and perspectives on the natural gradient method", JMLR 21, 2020, section 9.2).
//! ```
//! use foof::labels::{Labels, Loss, Outputs, full_errors, label_errors, sampled_errors};
//! use foof::{MatMut, MatRef, Sampler};
//!
//! # fn main() -> Result<(), foof::Error> {
//! let logits = [0.0f64, 0.0, 3.0, 0.0]; // two datapoints, two classes
//! let outputs = Outputs::Logits(MatRef::new(&logits, [2, 2])?);
//! let loss = Loss::SoftmaxCrossEntropy;
//! let mut errors = [0.0; 4];
//! label_errors(MatMut::new(&mut errors, [2, 2])?, loss, outputs, Labels::Classes(&[0, 1]))?;
//! assert_eq!(errors[..2], [-0.5, 0.5]);
//! sampled_errors(MatMut::new(&mut errors, [2, 2])?, loss, outputs, &mut Sampler::new(7))?;
//! let mut all = [0.0; 8]; // a row for each datapoint and class
//! full_errors(MatMut::new(&mut all, [4, 2])?, loss, outputs)?;
//! assert_eq!(all[..2], [-0.5 * 0.5f64.sqrt(), 0.5 * 0.5f64.sqrt()]);
//! # Ok(())
//! # }
//! ```

mod errors;
mod row;
mod sample;

pub use errors::{full_errors, label_errors};
pub use sample::{sample_classes, sampled_errors};

use crate::MatRef;

/// The loss `L_n` of a datapoint with output `s` and label `y`, and with it the distribution of labels that the model stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// `|s - y|²/2`: `y` from `N(s, I)`.
    SquaredError,
    /// `-ln p_y` with `p = softmax(s)`: a class `y` from `p`.
    SoftmaxCrossEntropy,
    /// `-sum_c (y_c ln p_c + (1 - y_c) ln(1 - p_c))` with `p_c = 1 / (1 + exp(-s_c))`: a bit for each output.
    SigmoidCrossEntropy,
}

/// What is known of a network's output, `[N, C]`.
#[derive(Clone, Copy, Debug)]
pub enum Outputs<'a, T> {
    /// `s`: the outputs before the softmax or sigmoid, or of squared error.
    Logits(MatRef<'a, T>),
    /// `p`: their softmax, or sigmoid. Squared error has none.
    Probabilities(MatRef<'a, T>),
}

impl<'a, T> Outputs<'a, T> {
    fn view(&self) -> MatRef<'a, T> {
        match *self {
            Outputs::Logits(view) | Outputs::Probabilities(view) => view,
        }
    }

    fn argument(&self) -> &'static str {
        match self {
            Outputs::Logits(_) => "logits",
            Outputs::Probabilities(_) => "probabilities",
        }
    }
}

/// Labels of a mini-batch.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a, T> {
    /// A class in `0..C` for each datapoint, of softmax cross-entropy.
    Classes(&'a [usize]),
    /// `y` `[N, C]`: targets of squared error; numbers in `[0, 1]` of sigmoid cross-entropy; of softmax cross-entropy distributions over
    /// the classes, whose rows sum to one.
    Targets(MatRef<'a, T>),
}
