//! Convolutions: their covariances and their own products, without unfolding.
//!
//! | module | what it says |
//! |---|---|
//! | [`geometry`] | what a convolution is |
//! | [`plan`] | how its covariance is computed |
//! | `axis`, [`correlation`] | the correlation form: classes of tap pairs, windows, segments, products |
//! | [`classes`] | the same, described for products taken elsewhere |
//! | `layout`, `image` | how a batch is cut into chunks and packed |
//! | `correlate`, `assemble`, `output` | the products, rows of the factor from their sums, the factor |
//! | [`depthwise`] | the products of a vector of one-channel groups |
//! | `reduced` | the covariance of sums over an image |
//! | [`patches`], [`sums`] | patches formed while packing; sums over windows |
//! | [`covariance`](mod@covariance) | all of it together |
//! | [`errors`] | the covariance of the errors |
//! | [`product`] | outputs, gradients of inputs and weights |
//! | `phase`, `store`, `groups` | pixels that share their taps; where tiles go; groups of channels |

pub(crate) mod assemble;
pub(crate) mod axis;
pub mod classes;
pub(crate) mod correlate;
pub mod correlation;
pub mod covariance;
pub mod depthwise;
pub mod errors;
pub mod geometry;
pub(crate) mod groups;
mod image;
mod layout;
mod output;
pub mod patches;
mod phase;
pub mod plan;
pub mod product;
mod reduced;
pub(crate) mod store;
pub mod sums;

pub use covariance::{ConvSpec, covariance, depth, scratch};
pub use geometry::{Axis, Conv, FeatureOrder, GeometryError};
pub use plan::{Form, Plan};
