//! Convolutions: their covariances against an explicit unfold, their products against their definition; plans and geometries.

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
mod products;
mod reals;
mod residual;
mod run;
mod sharing;
mod structure;
