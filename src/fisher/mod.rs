//! The Fisher matrix without forming it: products, quadratic forms, inverse products; and formed, for small networks.
//!
//! `F = (1/N) sum_r g_r g_r^T = G G^T` over the rows of errors of a batch of [`LayerBatch`]es, each row's gradient `g_r` over all weights
//! ([`woodbury`](crate::woodbury)); which Fisher matrix it is, the labels say ([`labels`](crate::labels)). Vectors `v` are one matrix of the
//! weights' shape for each layer.
//!
//! | wanted | from |
//! |---|---|
//! | `F v`, by steps (1) and (3): `2 N P` multiply-adds | [`fisher_vector_product`] |
//! | `v^T F v = \|G^T v\|²`, by step (1) alone | [`fisher_quadratic_form`] |
//! | an elastic penalty `(c/2) v^T F v` with its gradient `c F v` (EWC) | [`quadratic_penalty`] |
//! | `(F + lambda I)^-1 v`, of a loss's gradient for implicit differentiation | [`inverse_fisher_vector_product`] |
//! | the rows `g_r`, and `F` itself, `[P, P]` | [`gradient_rows`], [`dense_fisher`] |
//!
//! Elastic weight consolidation is Kirkpatrick et al. 2017 (PNAS 114), with the diagonal of `F`; here `F` is whole. Benzing 2022, section C.3.

mod dense;

pub use crate::woodbury::natural_gradient as inverse_fisher_vector_product;
pub use dense::{
    dense_fisher, dense_fisher_alloc, dense_fisher_scratch, gradient_rows, gradient_rows_alloc, gradient_rows_scratch,
};

use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch};
use crate::woodbury::{
    Direction, LayerBatch, gradient_dots, gradient_dots_scratch, gradient_sum, gradient_sum_scratch,
};
use crate::{Blend, Element, Error, MatMut, MemStack, Par, StackReq};

/// `out <- beta out + alpha F v = beta out + alpha G (G^T v)`, one matrix for each layer; `beta = 0` reads no `out`. `2 N P` multiply-adds for
/// matrices, no `N x P` matrix. With damping `lambda`, add `lambda v` by `beta`.
///
/// # Errors
/// As [`gradient_dots`] and [`gradient_sum`]; `out` as it was.
pub fn fisher_vector_product<T: Element>(
    out: &mut [MatMut<'_, T>],
    blend: Blend<T>,
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check_scratch(stack, fisher_vector_product_scratch(batch, v, par))?;
    product(out, blend, batch, v, par, stack).map(|_| ())
}

/// As [`fisher_vector_product`]; returns `v^T F v`.
fn product<T: Element>(
    out: &mut [MatMut<'_, T>],
    blend: Blend<T>,
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let (mut dots, stack) = temporary::<T>(stack, rows(batch));
    gradient_dots(&mut dots, batch, v, par, stack)?;
    gradient_sum(out, blend, batch, &dots, par, stack)?;
    Ok(squares(&dots))
}

/// Scratch of [`fisher_vector_product`].
pub fn fisher_vector_product_scratch<T: Element>(
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
) -> StackReq {
    let steps = gradient_dots_scratch(batch, v, par).or(gradient_sum_scratch(batch, par));
    temporary_scratch::<T>(rows(batch)).and(steps)
}

/// [`fisher_vector_product`] with scratch of its own.
///
/// # Errors
/// As [`fisher_vector_product`].
pub fn fisher_vector_product_alloc<T: Element>(
    out: &mut [MatMut<'_, T>],
    blend: Blend<T>,
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
) -> Result<(), Error> {
    let req = fisher_vector_product_scratch(batch, v, par);
    with_scratch(req, |stack| fisher_vector_product(out, blend, batch, v, par, stack))
}

/// `v^T F v = |G^T v|²`, never negative.
///
/// # Errors
/// As [`gradient_dots`].
pub fn fisher_quadratic_form<T: Element>(
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    check_scratch(stack, fisher_quadratic_form_scratch(batch, v, par))?;
    let (mut dots, stack) = temporary::<T>(stack, rows(batch));
    gradient_dots(&mut dots, batch, v, par, stack)?;
    Ok(squares(&dots))
}

/// Scratch of [`fisher_quadratic_form`].
pub fn fisher_quadratic_form_scratch<T: Element>(
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
) -> StackReq {
    temporary_scratch::<T>(rows(batch)).and(gradient_dots_scratch(batch, v, par))
}

/// [`fisher_quadratic_form`] with scratch of its own.
///
/// # Errors
/// As [`fisher_quadratic_form`].
pub fn fisher_quadratic_form_alloc<T: Element>(
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
) -> Result<T, Error> {
    let req = fisher_quadratic_form_scratch(batch, v, par);
    with_scratch(req, |stack| fisher_quadratic_form(batch, v, par, stack))
}

/// Returns `(c/2) v^T F v` and adds its gradient `c F v` to `gradients`: the penalty of elastic weight consolidation with strength `c`, for `v = W - W*`
/// and `F` at the weights `W*` of an earlier task. One step (1) serves both.
///
/// # Errors
/// [`Error::Parameter`] for a strength that is negative or not finite, and as [`fisher_vector_product`]; `gradients` as they were.
pub fn quadratic_penalty<T: Element>(
    gradients: &mut [MatMut<'_, T>],
    strength: T,
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let valid = strength >= T::zero() && strength.is_finite();
    check_parameter("strength", strength.to_f64(), valid, "a finite number, not negative")?;
    check_scratch(stack, fisher_vector_product_scratch(batch, v, par))?;
    let form = product(gradients, Blend::add(strength), batch, v, par, stack)?;
    Ok(T::from_f64(0.5) * strength * form)
}

/// [`quadratic_penalty`] with scratch of its own.
///
/// # Errors
/// As [`quadratic_penalty`].
pub fn quadratic_penalty_alloc<T: Element>(
    gradients: &mut [MatMut<'_, T>],
    strength: T,
    batch: &[LayerBatch<'_, T>],
    v: &[Direction<'_, T>],
    par: Par,
) -> Result<T, Error> {
    let req = fisher_vector_product_scratch(batch, v, par);
    with_scratch(req, |stack| quadratic_penalty(gradients, strength, batch, v, par, stack))
}

/// `R`, if there is a layer.
fn rows<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.first().map_or(0, LayerBatch::rows)
}

/// `|x|²`, summed in `f64`.
fn squares<T: Element>(x: &[T]) -> T {
    T::from_f64(x.iter().map(|&x| Element::to_f64(x).powi(2)).sum())
}
