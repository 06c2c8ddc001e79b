//! Laplace's approximation of the posterior over weights, `N(W_MAP, covariance)`: exact samples of it.
//!
//! | posterior precision | samples | memory |
//! |---|---|---|
//! | `S0^-1 + sum_r g_r g_r^T`, the full covariance, with a [`Prior`] for each layer | [`Laplace`] | `R x R` and the batch |
//! | `N B ⊗ A + delta I`, Kronecker | [`kronecker_sample_alloc`] | the eigenbases of `A` and `B` |
//! | `I ⊗ (N A + delta I)`, the input factor alone | [`input_factor_sample_alloc`] | a factor of `[i, i]` |
//!
//! With all labels in the batch ([`labels::full_errors`](crate::labels::full_errors)) `sum_r g_r g_r^T` is the generalised Gauss-Newton matrix of the
//! summed loss. Samples are drawn from a [`Sampler`](crate::Sampler): equal seeds give equal bits, for any number of threads.
//!
//! Benzing 2022, sections C.1 and G; sampling by a perturbation of the prior: Matheron's rule (Journel & Huijbregts 1978; Hoffman & Ribak 1991).
//! The Kronecker posterior: Ritter, Botev & Barber 2018.

mod full;
mod kronecker;

pub use full::{Laplace, Prior};
pub use kronecker::{input_factor_sample_alloc, kronecker_sample_alloc};
