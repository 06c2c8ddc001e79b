//! Damped inverses `(s A + lambda I)^-1` by Cholesky, one or a list of mixed sizes, and what else one factor gives.
//!
//! | from | to |
//! |---|---|
//! | `s A + lambda I` | its factor, [`damped_cholesky`]; its inverse, [`damped_inverse`]; those of many matrices, [`damped_inverses`]; of a batch of one size, [`batched_damped_inverse`] |
//! | a factor `L` | [`solve`], [`inverse_quadratic_forms`], [`log_det`], [`condition_estimate`] |
//! | a matrix and its inverse | a bound of the residual, [`residual_certificate`] |
//!
//! What is done where a matrix is not positive definite is an option, [`Indefinite`].

mod batched;
mod certificate;
mod condition;
mod damped;
mod indefinite;
mod mixed;
mod solve;

#[cfg(feature = "cuda")]
pub(crate) use batched::check as check_batch;
pub use batched::{
    batched_damped_inverse, batched_damped_inverse_alloc, batched_damped_inverse_scratch, batched_solve,
    batched_solve_alloc, batched_solve_scratch,
};
pub use certificate::{
    Certificate, Check, residual_certificate, residual_certificate_alloc, residual_certificate_scratch,
};
pub use condition::{
    condition_estimate, condition_estimate_alloc, condition_estimate_scratch, inverse_norm1_estimate,
    inverse_norm1_estimate_alloc, inverse_norm1_estimate_scratch, norm1, norm1_alloc, norm1_scratch,
};
pub use damped::{
    damped_cholesky, damped_cholesky_alloc, damped_cholesky_scratch, damped_inverse, damped_inverse_alloc,
    damped_inverse_scratch,
};
pub use indefinite::{Damping, Indefinite};
pub(crate) use mixed::failures;
pub use mixed::{DampedInverse, damped_inverses, damped_inverses_alloc, damped_inverses_scratch};
pub use solve::{
    Side, inverse_quadratic_form, inverse_quadratic_form_alloc, inverse_quadratic_form_scratch,
    inverse_quadratic_forms, inverse_quadratic_forms_alloc, inverse_quadratic_forms_scratch, log_det, solve,
    solve_alloc, solve_scratch,
};

pub use foof_kernels::batched::Dampings;

use crate::error::{check_parameter, check_shape};
use crate::{Element, Error, MatRef};

fn check<T: Element>(out: [usize; 2], a: MatRef<'_, T>, scale: T, damping: Damping<T>) -> Result<(), Error> {
    let n = a.rows();
    check_shape("a", &[n, n], &a.shape())?;
    check_shape("out", &[n, n], &out)?;
    check_parameter("scale", scale.to_f64(), scale > T::zero() && scale.is_finite(), "a positive finite number")?;
    damping.check()
}
