//! Covariances on a device: the CPU's properties and oracles, for every rung of the ladder.

mod errors;
mod factors;
mod foreign;
mod integers;
mod reals;
mod run;
