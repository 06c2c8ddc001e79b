//! Convolutions: their covariances against an explicit unfold, their products against their definition.

mod exact;
mod naive;
mod products;
