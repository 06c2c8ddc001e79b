//! The Fisher matrix as a matrix.

use crate::covariance::{FactorOptions, factor_scratch, input_factor};
use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_scratch, check_shape};
use crate::scaling::Scaling;
use crate::woodbury::batch::check_batch;
use crate::woodbury::{LayerBatch, gradient_sum, gradient_sum_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};

/// The rows of `G^T`: `out` `[R, P]`, row `r` being `g_r / sqrt(N)`, the layers' weights one after the other, each row-major. One step (3) for
/// each row, `R N P` multiply-adds: for small networks, as an oracle.
///
/// # Errors
/// As [`gradient_sum`]; [`Error::Shape`] for `out`.
pub fn gradient_rows<T: Element>(
    mut out: MatMut<'_, T>,
    batch: &[LayerBatch<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [rows, _] = check_batch(batch)?;
    check_shape("out", &[rows, weights(batch)], &out.shape())?;
    check_scratch(stack, gradient_rows_scratch(batch, par))?;
    let (mut unit, stack) = temporary::<T>(stack, rows);
    let (mut row, stack) = temporary::<T>(stack, weights(batch));
    for r in 0..rows {
        unit[r] = T::one();
        let mut left = &mut row[..];
        for layer in batch {
            let shape = layer.weight_shape();
            let (part, rest) = left.split_at_mut(shape.iter().product());
            gradient_sum(&mut [MatMut::new(part, shape)?], Blend::set(T::one()), &[*layer], &unit, par, stack)?;
            left = rest;
        }
        out.rb_mut().row_range(r..r + 1).copy_from(MatRef::new(&row, [1, row.len()])?);
        unit[r] = T::zero();
    }
    Ok(())
}

/// Scratch of [`gradient_rows`].
pub fn gradient_rows_scratch<T: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    let [unit, row] = [super::rows(batch), weights(batch)].map(temporary_scratch::<T>);
    StackReq::all_of(&[unit, row, gradient_sum_scratch(batch, par)])
}

/// [`gradient_rows`] with scratch of its own.
///
/// # Errors
/// As [`gradient_rows`].
pub fn gradient_rows_alloc<T: Element>(out: MatMut<'_, T>, batch: &[LayerBatch<'_, T>], par: Par) -> Result<(), Error> {
    with_scratch(gradient_rows_scratch(batch, par), |stack| gradient_rows(out, batch, par, stack))
}

/// `F = (1/N) sum_r g_r g_r^T`, `out` `[P, P]`, from the gradients of each row of errors ([`gradient_rows`]). For networks with few weights:
/// the exact matrix that the factors of K-FAC and the three steps of [`woodbury`](crate::woodbury) stand for, to check them, or one's own
/// approximation, against.
///
/// # Errors
/// As [`gradient_rows`]; [`Error::NotFinite`] `inputs` with the row and the place in it of a gradient that is not.
pub fn dense_fisher<T: Element>(
    out: MatMut<'_, T>,
    batch: &[LayerBatch<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let (rows, p) = (super::rows(batch), weights(batch));
    check_shape("out", &[p, p], &out.shape())?;
    check_scratch(stack, dense_fisher_scratch(batch, par))?;
    let (mut gradients, stack) = temporary::<T>(stack, rows * p);
    gradient_rows(MatMut::new(&mut gradients, [rows, p])?, batch, par, stack)?;
    input_factor(out, MatRef::new(&gradients, [rows, p])?.positions(1), &sums(), par, stack)
}

/// Scratch of [`dense_fisher`].
pub fn dense_fisher_scratch<T: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    let (rows, p) = (super::rows(batch), weights(batch));
    let work = gradient_rows_scratch(batch, par).or(factor_scratch::<T>([rows, 1, p], &sums(), par));
    temporary_scratch::<T>(rows.saturating_mul(p)).and(work)
}

/// [`dense_fisher`] with scratch of its own.
///
/// # Errors
/// As [`dense_fisher`].
pub fn dense_fisher_alloc<T: Element>(out: MatMut<'_, T>, batch: &[LayerBatch<'_, T>], par: Par) -> Result<(), Error> {
    with_scratch(dense_fisher_scratch(batch, par), |stack| dense_fisher(out, batch, par, stack))
}

/// Rows of gradients are divided by `sqrt(N)`: their products are summed as they are.
fn sums() -> FactorOptions {
    FactorOptions { scaling: Scaling::Sum, ..FactorOptions::default() }
}

/// `P`.
fn weights<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.iter().map(|layer| layer.weight_shape().iter().product::<usize>()).sum()
}
