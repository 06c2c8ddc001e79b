//! The Fisher matrix as a matrix.

use crate::covariance::{FactorOptions, input_factor_alloc};
use crate::error::check_shape;
use crate::scaling::Scaling;
use crate::woodbury::{LayerBatch, gradient_sum, gradient_sum_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemBuffer, MemStack, Par};

/// The rows of `G^T`: `out` `[R, P]`, row `r` being `g_r / sqrt(N)`, the layers' weights one after the other, each row-major. One step (3) for
/// each row, `R N P` multiply-adds: for small networks, as an oracle.
///
/// # Errors
/// As [`gradient_sum`]; [`Error::Shape`] for `out`.
pub fn gradient_rows_alloc<T: Element>(
    mut out: MatMut<'_, T>,
    batch: &[LayerBatch<'_, T>],
    par: Par,
) -> Result<(), Error> {
    let rows = super::rows(batch);
    check_shape("out", &[rows, weights(batch)], &out.shape())?;
    let mut memory = MemBuffer::new(gradient_sum_scratch(batch, par));
    let (mut unit, mut row) = (vec![T::zero(); rows], vec![T::zero(); weights(batch)]);
    for r in 0..rows {
        unit[r] = T::one();
        let (mut left, mut parts) = (&mut row[..], Vec::new());
        for layer in batch {
            let shape = layer.weight_shape();
            let (part, rest) = left.split_at_mut(shape.iter().product());
            parts.push(MatMut::new(part, shape)?);
            left = rest;
        }
        gradient_sum(&mut parts, Blend::set(T::one()), batch, &unit, par, MemStack::new(&mut memory))?;
        out.rb_mut().row_range(r..r + 1).copy_from(MatRef::new(&row, [1, row.len()])?);
        unit[r] = T::zero();
    }
    Ok(())
}

/// `F = (1/N) sum_r g_r g_r^T`, `out` `[P, P]`, from the gradients of each row of errors ([`gradient_rows_alloc`]). For networks with few weights:
/// the exact matrix that the factors of K-FAC and the three steps of [`woodbury`](crate::woodbury) stand for, to check them, or one's own
/// approximation, against.
///
/// # Errors
/// As [`gradient_rows_alloc`]; [`Error::EmptyBatch`]; [`Error::NotFinite`] `inputs` with the row and the place in it of a gradient that is not.
pub fn dense_fisher_alloc<T: Element>(out: MatMut<'_, T>, batch: &[LayerBatch<'_, T>], par: Par) -> Result<(), Error> {
    let (rows, p) = (super::rows(batch), weights(batch));
    check_shape("out", &[p, p], &out.shape())?;
    let mut gradients = vec![T::zero(); rows * p];
    gradient_rows_alloc(MatMut::new(&mut gradients, [rows, p])?, batch, par)?;
    let options = FactorOptions { scaling: Scaling::Sum, ..FactorOptions::default() };
    input_factor_alloc(out, MatRef::new(&gradients, [rows, p])?.positions(1), &options, par)
}

/// `P`.
fn weights<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.iter().map(|layer| layer.weight_shape().iter().product::<usize>()).sum()
}
