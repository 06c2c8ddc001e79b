//! Convolutions: their covariances without unfolding.
//!
//! | module | what it says |
//! |---|---|
//! | [`geometry`] | what a convolution is |
//! | [`plan`] | how its covariance is computed |
//! | `axis`, [`correlation`] | the correlation form: classes of tap pairs, windows, segments, products |
//! | `layout`, `image` | how a batch is cut into chunks and packed |
//! | `correlate`, `assemble` | the products, and the factor from their sums |
//! | [`depthwise`] | the products of a vector of one-channel groups |
//! | [`patches`], [`sums`] | patches formed while packing; sums over windows |
//! | [`covariance`](mod@covariance) | all of it together |

pub(crate) mod assemble;
pub(crate) mod axis;
pub(crate) mod correlate;
pub mod correlation;
pub mod covariance;
pub mod depthwise;
pub mod geometry;
mod image;
mod layout;
pub mod patches;
pub mod plan;
pub mod sums;

pub use covariance::{ConvSpec, covariance, depth, scratch};
pub use geometry::{Axis, Conv, FeatureOrder, GeometryError};
pub use plan::{Form, Plan};
