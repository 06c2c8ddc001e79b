//! Convolutions to test: geometries of every kind, batches of images, and their covariances by the explicit unfold.

mod axes;
mod problem;

pub use axes::{axes, convolutions, kinds, random_request};
pub use problem::{Images, Problem, Request, oracle, padded};
