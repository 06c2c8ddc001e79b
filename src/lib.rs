//! Preconditioning gradients in neuron space: FOOF, K-FAC and EK-FAC on the CPU, with derived rounding bounds.
//!
//! # Conventions
//! Matrices are row-major and hold **one datapoint per row**: inputs `X` are `[N, i]`, errors `E = dL_n/ds_n` are `[N, o]`, weights and
//! gradients `[o, i]`, with a bias as last column. `vec` is row-major too, so `vec(B U A) = (B ⊗ A) vec(U)` for symmetric `A`, and a
//! layer's curvature is approximated by `B ⊗ A` with `A = (1/N) X^T X` `[i, i]` and `B = (1/N) E^T E` `[o, o]`. (Benzing, "Gradient
//! Descent on Neurons and its Link to Approximate Second-Order Optimization", ICML 2022, writes one datapoint per column.)
//!
//! # Modules
//! [`covariance`] and, for convolutions, [`convolution`] form the factors, [`inverse`] and [`eigen`] prepare them, [`damping`] chooses how they are damped, [`kronecker`]
//! applies them to gradients, [`woodbury`] solves with the exact Fisher matrix, [`labels`] says of which labels, [`fisher`] and [`laplace`] hold what else the same sums give, and [`optim`] the optimisers built from all these. [`product`] is the matrix product under all of them.
//!
//! Operations that need memory take a `MemStack` of the size that their `*_scratch` twin reports; their `*_alloc` twins allocate.
//! Shape and parameter errors leave outputs as they were.
//!
//! # Example
//! The paper's Appendix F: inputs (3, 1) and (1, 0), targets 1 and -1, `W = 0`, loss `(s - y)²/2`. The gradient step increases the
//! second datapoint's loss whatever its size; FOOF's undamped step fits both.
//! ```
//! use foof::covariance::{FactorOptions, input_factor_alloc};
//! use foof::inverse::damped_inverse_alloc;
//! use foof::kronecker::{Factor, Gradient, foof_step_alloc};
//! use foof::{Blend, MatMut, MatRef, Par, Triangle, View};
//!
//! # fn main() -> Result<(), foof::Error> {
//! let x = [3.0f64, 1.0, 1.0, 0.0];
//! let e = [-1.0f64, 1.0]; // s - y
//! let (mut a, mut p, mut w) = ([0.0; 4], [0.0; 4], [0.0; 2]);
//! let par = Par::seq();
//! input_factor_alloc(MatMut::new(&mut a, [2, 2])?, View::new(&x, [2, 1, 2])?, &FactorOptions::default(), par)?;
//! damped_inverse_alloc(MatMut::new(&mut p, [2, 2])?, MatRef::new(&a, [2, 2])?, 1.0, 0.0, Triangle::Full, par)?;
//! let gradient = Gradient::LowRank { inputs: MatRef::new(&x, [2, 2])?, errors: MatRef::new(&e, [2, 1])?, scale: 0.5 };
//! let factor = Factor::Inverse(MatRef::new(&p, [2, 2])?);
//! foof_step_alloc(MatMut::new(&mut w, [1, 2])?, Blend::set(-1.0), gradient, factor, par)?;
//! // An inverse's residual is within 4 gamma_8 tr(A) tr(A^-1) for n = 2, and W = U A^-1 is off by that times |W|.
//! let bound = 4.0 * 8.0 * (f64::EPSILON / 2.0) * (5.5 * 22.0) * 17f64.sqrt();
//! assert!((w[0] + 1.0).abs() <= bound && (w[1] - 4.0).abs() <= bound);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod convolution;
pub mod covariance;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod damping;
mod dense;
pub mod eigen;
mod error;
pub mod fisher;
pub mod inverse;
pub mod kronecker;
pub mod labels;
pub mod laplace;
pub mod layer;
pub mod optim;
pub mod product;
mod sampler;
pub mod scaling;
pub mod woodbury;

pub use dyn_stack::{MemBuffer, MemStack, StackReq};
pub use error::Error;
pub use foof_kernels::covariance::{Bias, Sharing};
pub use foof_kernels::{
    AnyView, Blend, Element, Input, Isa, IsaError, MatMut, MatRef, Par, Triangle, View, ViewError, ViewMut,
};
pub use sampler::Sampler;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
