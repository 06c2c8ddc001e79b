//! The exact natural gradient against dense oracles.

mod network;
mod sums;
