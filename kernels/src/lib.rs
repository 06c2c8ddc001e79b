//! The CPU kernels of `foof`: one tile engine, what feeds it, and the blocked Cholesky family on top.
//!
//! Start at [`engine`], which holds the loops; [`product`], [`covariance`] and [`cholesky`] are what it is used for.
//! Functions here panic on shapes that disagree; the crate `foof` checks them first and returns typed errors.

pub mod batched;
pub mod cholesky;
pub mod conv;
pub mod covariance;
mod element;
pub mod elementwise;
pub mod engine;
mod isa;
mod par;
pub mod peak;
pub mod product;
pub mod schedule;
mod simd;
pub mod view;
pub mod woodbury;

pub use element::{Element, Input};
pub use engine::epilogue::{Blend, Triangle};
pub use isa::{Isa, IsaError};
pub use par::Par;
pub use view::{AnyView, MatMut, MatRef, View, ViewError, ViewMut};
