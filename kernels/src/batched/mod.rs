//! Many small matrices at once, one in each lane.

pub(crate) mod blocks;
pub mod eigen;
pub(crate) mod lanes;
