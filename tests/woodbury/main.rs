//! The exact natural gradient against dense oracles.

mod errors;
mod forms;
mod golden;
mod network;
mod solve;
mod sums;
