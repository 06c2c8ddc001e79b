//! Kronecker-preconditioned products: FOOF `U P_A`, K-FAC `P_B U P_A`, and their eigenbasis variants.
//!
//! The gradient is a matrix or low-rank; the order of the products is a [`Plan`], made from shapes alone.

mod apply;
mod eigenbasis;
mod plan;

pub use apply::{Factor, Gradient, foof_step, foof_step_alloc, kfac_step, kfac_step_alloc, step_scratch};
pub(crate) use apply::{rows_times, rows_times_scratch};
pub(crate) use eigenbasis::{Denominators, eigen_step};
pub use eigenbasis::{Eigenbasis, eigen_step_scratch, ekfac_step, ekfac_step_alloc, exact_step, exact_step_alloc};
pub use plan::{Place, Plan};
