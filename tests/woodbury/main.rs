//! The exact natural gradient against dense oracles.

mod errors;
mod forms;
mod golden;
mod memory;
#[expect(dead_code, reason = "shared with the tests of what is made of the sums")]
mod network;
mod scaled;
mod solve;
mod sums;
