//! Convolutions: their covariances against an explicit unfold, their products against their definition; plans and geometries.

mod axes;
mod batches;
mod channels;
mod errors;
mod factors;
mod geometries;
mod geometry;
mod golden;
mod layouts;
mod naive;
mod plans;
mod problem;
mod products;
mod reals;
mod residual;
mod sharing;
mod structure;
