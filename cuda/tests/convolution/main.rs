//! Covariances of convolutions on the device: the CPU's problems and oracle, every algorithm, several orders of threads.

#[allow(dead_code)] // what the CPU's tests alone need
#[path = "../../../tests/convolution/axes.rs"]
mod axes;
mod device;
mod geometries;
mod layouts;
#[allow(dead_code)] // what runs them on the CPU
#[path = "../../../tests/convolution/problem.rs"]
mod problem;
mod reals;
mod safe;
