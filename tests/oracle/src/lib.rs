//! What foof's tests share: dense `f64` oracles, rounding bounds, golden vectors and test data.
//!
//! The oracles are small and obvious rather than fast: every curvature matrix is built from per-datapoint gradients,
//! every Kronecker product entry by entry, every inverse is a dense solve. They use nothing they test ([`kernels`] only
//! runs it), and panic on misuse, for a test that misuses them is wrong.
//!
//! - [`Dense`], with LU, Cholesky and Jacobi eigenvalues in [`decompose`];
//! - [`fisher`]: gradients, the Fisher matrix, Kronecker factors; [`steps`]: damping and preconditioned steps;
//! - [`bounds`]: entrywise rounding bounds of single kernels; [`approx`] and [`rounded`]: bounds carried through whole
//!   formulas, on which [`network`] and [`trajectory`] are built;
//! - [`golden`] and [`case`]: vectors from PyTorch, [`unfold`]: convolutions as weight-shared layers, [`images`]: batches and geometries of them;
//! - [`generate`], [`layout`], [`compare`]: random data, buffers of every layout, assertions;
//! - [`kernels`]: running a kernel on every instruction set and several thread counts.

#![forbid(unsafe_code)]

pub mod approx;
pub mod bounds;
pub mod case;
pub mod compare;
pub mod decompose;
pub mod dense;
pub mod fisher;
pub mod generate;
pub mod golden;
pub mod images;
pub mod kernels;
pub mod layout;
pub mod network;
pub mod rounded;
pub mod steps;
pub mod trajectory;
pub mod unfold;

pub use dense::Dense;
pub use generate::Random;
