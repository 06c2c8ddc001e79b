//! The optimisers: on the golden trajectory step by step, by hand on exact data, against the dense oracles and the
//! golden networks, and saved and resumed.

mod batch;
mod convolution;
mod images;
mod inputs;
mod invariance;
mod labels;
mod methods;
mod schedule;
mod state;
mod trajectory;
