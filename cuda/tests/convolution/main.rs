//! Covariances of convolutions on the device: the CPU's problems and oracle, every algorithm, several orders of threads.

mod device;
mod geometries;
mod layouts;
mod reals;
mod safe;
