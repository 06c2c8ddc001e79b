//! Covariances of convolutions against an explicit unfold.

mod exact;
