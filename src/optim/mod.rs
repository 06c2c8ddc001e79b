//! Optimisers: preconditioners with a schedule, momentum, weight decay and averaging around them.
//!
//! At each step, counted from 0 (Benzing 2022, Algorithm 1, in the order of our mathematics):
//! ```text
//! step t:                   V <- mu V + D;   W <- (1 - eta w) W - eta V      D the preconditioned gradient
//! if t mod T >= T - S:      observe:  A <- m A + (1-m) (1/N) X^T X           (and B likewise)
//! if (t+1) mod T == 0:      refresh:  P <- (c A + lambda I)^-1               c = 1/(1 - m^k) after k observations
//! ```
//! Layers are dense, shared over positions, or convolutions ([`Layer`](crate::layer::Layer)); a layer shows its inputs and errors as rows or as images
//! ([`Activations`]), and each group of a convolution has factors of its own.
//!
//! Before training, pass `schedule.initial` mini-batches to [`Optimizer::observe`], then call [`Optimizer::refresh`].
//! An error leaves weights and state as they were.

mod activations;
mod adaptive;
mod blocks;
mod compare;
mod ekfac;
mod factors;
mod foof;
pub(crate) mod kept;
mod kfac;
mod moments;
mod natural;
mod optimizer;
mod options;
mod preconditioner;
mod state;
mod systems;

pub use crate::kronecker::Gradient;
pub use activations::{Activations, Observation};
pub use adaptive::{LevenbergMarquardt, ModelStep, QuadraticModel, reduction_ratio};
pub use compare::{cosine, metric_cosine};
pub use ekfac::{EkfacFactors, EkfacOptions};
pub use foof::{FoofDamping, FoofFactors, FoofOptions, FoofScale};
pub use kfac::{KfacDamping, KfacFactors, KfacOptions};
pub use natural::{FisherBlocks, FisherFactors, NaturalGradientOptions};
pub use optimizer::Optimizer;
pub use options::{Order, Schedule, StepOptions};
pub use preconditioner::{Entry, Preconditioner, State};

/// FOOF (Benzing 2022): `D = U (A + lambda I)^-1`.
pub type Foof<T> = Optimizer<T, FoofFactors<T>>;
/// K-FAC (Martens & Grosse 2015): `D = (B + lambda_B I)^-1 U (A + lambda_A I)^-1`, or with exact damping.
pub type Kfac<T> = Optimizer<T, KfacFactors<T>>;
/// The exact natural gradient (Benzing 2022, section 4): `D = (F + lambda I)^-1 u`, with the Fisher matrix of a kept mini-batch.
pub type NaturalGradient<T> = Optimizer<T, FisherFactors<T>>;
/// EK-FAC (George et al. 2018): K-FAC's eigenbasis with second moments of its own.
pub type Ekfac<T> = Optimizer<T, EkfacFactors<T>>;
