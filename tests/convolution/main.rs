//! Convolutions: their covariances against an explicit unfold, their products against their definition.

mod errors;
mod exact;
mod factors;
mod naive;
mod products;
