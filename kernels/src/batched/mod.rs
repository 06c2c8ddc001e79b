//! Many small matrices of one size, one in each SIMD lane.

pub mod eigen;
