//! The exact natural gradient of a mini-batch, by Woodbury's identity, in three steps (Benzing 2022, equations 19 to 23).
//!
//! With `g_r` `[P]` the gradient of row `r` of errors, `F = (1/N) sum_r g_r g_r^T = G G^T` and `G = [g_1 .. g_R] / sqrt(N)`,
//! ```text
//! (F + lambda I)^-1 u = (1/lambda) (u - G w),   w = (lambda I + G^T G)^-1 G^T u
//!
//! (1)  (G^T u)_r  =  (1/sqrt N) sum_l sum_t  e_rt . (U_l x_nt)                               gradient_dots
//! (2)  (G^T G)_rs =  (1/N)      sum_l sum_tu (x_nt . x_mu) (e_rt . e_su)                     gradient_gram
//! (3)  (G v)_l    =  (1/sqrt N) sum_rt v_r e_rt x_nt^T                                       gradient_sum
//! ```
//! A [`LayerBatch`] is what one layer saw: inputs and errors, each datapoint's loss its own (not divided by `N`). There may be `C` rows of errors for
//! each datapoint, `R = N C`, one after the other: the full Fisher matrix has one for each label, scaled by `sqrt(p_c)`. Inputs stay
//! over `N`. Layers share weights over `T` positions, or are convolutions; inputs are never unfolded, and no gradient of a datapoint is
//! kept. Memory: one `R x R` matrix, a few hundred of a layer's rows packed, a fifth of the system while it is factored, tiles.
//!
//! The gradient `u` is a list of [`Direction`]s, one for each layer: matrices, or low-rank, from the rows of a mini-batch. For a block-diagonal
//! `F`, take one layer at a time.
//! ```
//! use foof::layer::Layer;
//! use foof::woodbury::{Direction, LayerBatch, WoodburyOptions, natural_gradient_alloc};
//! use foof::{MatMut, MatRef, Par};
//!
//! # fn main() -> Result<(), foof::Error> {
//! let (x, e) = ([3.0f64, 1.0, 1.0, 0.0], [-1.0f64, 1.0]); // two datapoints of a linear neuron
//! let batch = [LayerBatch::new(&Layer::dense(2, 1)?, MatRef::new(&x, [2, 2])?, MatRef::new(&e, [2, 1])?)?];
//! let u = [Direction::LowRank { batch: batch[0], scale: 0.5 }]; // the mean gradient of the same two
//! let mut step = [0.0; 2];
//! natural_gradient_alloc(&mut [MatMut::new(&mut step, [1, 2])?], &batch, &u, &WoodburyOptions::new(0.5), Par::seq())?;
//! // (F + I/2)^-1 u with F = [5, 1.5; 1.5, 0.5], u = (-1, -0.5)
//! // Within c u kappa |u| / lambda, kappa = 1 + tr(F) / lambda = 12: three sums and a solve, of fewer than 8 roundings each.
//! let bound = 4.0 * 8.0 * (f64::EPSILON / 2.0) * 12.0 * 1.25f64.sqrt() / 0.5;
//! assert!((step[0] + 0.25 / 3.25).abs() <= bound && (step[1] + 1.25 / 3.25).abs() <= bound);
//! # Ok(())
//! # }
//! ```

pub(crate) mod batch;
mod solve;
pub(crate) mod steps;
pub(crate) mod system;

pub use batch::{Direction, LayerBatch};
pub use foof_kernels::woodbury::gram::Form;
pub use solve::{
    Refinement, SystemPrecision, Woodbury, WoodburyOptions, natural_gradient, natural_gradient_alloc,
    natural_gradient_scratch,
};
pub use steps::{
    gradient_dots, gradient_dots_alloc, gradient_dots_scratch, gradient_gram, gradient_gram_alloc,
    gradient_gram_scratch, gradient_sum, gradient_sum_alloc, gradient_sum_scratch,
};
