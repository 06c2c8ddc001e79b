//! Convolutions: covariances against an explicit unfold, plans, geometries.

mod batches;
mod channels;
mod geometries;
mod geometry;
mod golden;
mod layouts;
mod plans;
mod problem;
mod reals;
mod residual;
mod sharing;
mod structure;
