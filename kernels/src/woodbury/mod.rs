//! The three sums over datapoints' gradients `g_r` that the exact natural gradient is made of (Benzing 2022, equations 21 to 23), layer by
//! layer, without any `g_r`.
//!
//! ```text
//! dots   d_r     (+)=  <g_r, U>             sum over o, t of E_r[t, o] (X_n U^T)[t, o], a tile of the product at a time
//! gram   K_rs    (+)=  <g_r, g_s>           tiles of X X^T and of E E^T multiplied entrywise, or gradients a block of weights at a time
//! sum    U         =   sum_r v_r g_r        E^T diag(v) X, weighted while packing
//! ```
//!
//! | module | what it says |
//! |---|---|
//! | [`layer`] | a layer's rows, dense, weight-shared or of a convolution, as operands |
//! | `scales` | features times a number each, while they are packed |
//! | [`dots`](mod@dots), [`gram`](mod@gram), [`sum`](mod@sum) | the sums |
//! | `pairs` | tiles of two products, multiplied entrywise |
//! | `gradients` | gradients of all datapoints, a block of weights at a time |

pub mod dots;
mod gradients;
pub mod gram;
pub mod layer;
mod pairs;
mod scales;
pub mod sum;

pub use layer::{Layer, Tensor, Weights};
