//! The exact natural gradient against dense oracles.

mod errors;
mod forms;
mod golden;
mod memory;
mod network;
mod solve;
mod sums;
