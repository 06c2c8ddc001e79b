//! The oracles' own tests: cases computed by hand, golden vectors from PyTorch, and naive `f32` kernels that must keep
//! to every bound.

mod algebra;
mod bounds;
mod data;
mod golden;
mod hand;
mod trajectory;
mod unfold;
