//! The optimisers: on the golden trajectory step by step, by hand on exact data, against the dense oracles, and saved and resumed.

mod batch;
mod inputs;
mod methods;
mod schedule;
mod state;
mod trajectory;
