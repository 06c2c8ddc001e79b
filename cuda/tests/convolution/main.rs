//! Covariances of convolutions on the device: the CPU's problems and oracle, every algorithm, several orders of threads.

#[path = "../../../tests/convolution/axes.rs"]
mod axes;
mod device;
mod geometries;
#[path = "../../../tests/convolution/problem.rs"]
#[allow(dead_code)] // what runs them on the CPU
mod problem;
