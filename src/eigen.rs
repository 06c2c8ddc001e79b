//! Eigendecompositions `A = Q diag(a) Q^T` of symmetric matrices, by faer, and copies from and to faer's matrices.

use crate::dense::{temporary, temporary_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MatMut, MatRef, MemBuffer, MemStack, StackReq};
use core::any::TypeId;
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};

/// Eigenvalues (ascending) and eigenvectors (columns of `vectors`) of `scale A`, symmetric `[n, n]`, of which the lower triangle is read.
/// Runs on the calling thread, so that the basis does not depend on the number of threads. About `9 n³` operations.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`], [`Error::Scratch`], [`Error::NoConvergence`]; outputs as they were.
pub fn self_adjoint_eigen<T: Element>(
    values: &mut [T],
    mut vectors: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let n = a.rows();
    check_shape("a", &[n, n], &a.shape())?;
    check_shape("values", &[n], &[values.len()])?;
    check_shape("vectors", &[n, n], &vectors.shape())?;
    check_parameter("scale", scale.to_f64(), scale > T::zero() && scale.is_finite(), "a positive finite number")?;
    check_scratch(stack, self_adjoint_eigen_scratch::<T>(n))?;
    let (mut lower, stack) = temporary::<T>(stack, n * n);
    let (mut columns, stack) = temporary::<T>(stack, n * n);
    let (mut found, stack) = temporary::<T>(stack, n);
    for i in 0..n {
        for j in 0..=i {
            let value = scale * a.at([i, j]);
            if !value.is_finite() {
                return Err(Error::NotFinite { argument: "a", index: vec![i, j] });
            }
            lower[j * n + i] = value;
        }
    }
    let done = if TypeId::of::<T>() == TypeId::of::<f32>() {
        decompose::<f32>(cast(&mut lower), cast(&mut columns), cast(&mut found), n, stack)
    } else {
        decompose::<f64>(cast(&mut lower), cast(&mut columns), cast(&mut found), n, stack)
    };
    done?;
    values.copy_from_slice(&found);
    for i in 0..n {
        for j in 0..n {
            vectors.set([i, j], columns[j * n + i]);
        }
    }
    Ok(())
}

/// [`Element`] is `f32` or `f64`; faer's traits stay out of our signatures.
fn cast<T: Element, R: Element>(slice: &mut [T]) -> &mut [R] {
    bytemuck::cast_slice_mut(slice)
}

fn decompose<R: faer::traits::RealField>(
    lower: &mut [R],
    columns: &mut [R],
    values: &mut [R],
    n: usize,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let a = faer::MatRef::from_column_major_slice(lower, n, n);
    let q = faer::MatMut::from_column_major_slice_mut(columns, n, n);
    let s = faer::ColMut::from_slice_mut(values).as_diagonal_mut();
    self_adjoint_evd(a, s, Some(q), faer::Par::Seq, stack, Default::default())
        .map_err(|_| Error::NoConvergence { size: n })
}

/// Scratch of [`self_adjoint_eigen`] of an `[n, n]` matrix.
pub fn self_adjoint_eigen_scratch<T: Element>(n: usize) -> StackReq {
    let faer = if TypeId::of::<T>() == TypeId::of::<f32>() { faer_scratch::<f32>(n) } else { faer_scratch::<f64>(n) };
    let own = [n * n, n * n, n].map(temporary_scratch::<T>);
    StackReq::all_of(&own).and(faer)
}

fn faer_scratch<R: faer::traits::RealField>(n: usize) -> StackReq {
    self_adjoint_evd_scratch::<R>(n, ComputeEigenvectors::Yes, faer::Par::Seq, Default::default())
}

/// [`self_adjoint_eigen`] with scratch of its own.
///
/// # Errors
/// As [`self_adjoint_eigen`].
pub fn self_adjoint_eigen_alloc<T: Element>(
    values: &mut [T],
    vectors: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
) -> Result<(), Error> {
    let mut memory = MemBuffer::new(self_adjoint_eigen_scratch::<T>(a.rows()));
    self_adjoint_eigen(values, vectors, a, scale, MemStack::new(&mut memory))
}

/// A copy as a faer matrix.
pub fn to_faer<T: Element>(a: MatRef<'_, T>) -> faer::Mat<T> {
    faer::Mat::from_fn(a.rows(), a.cols(), |i, j| a.at([i, j]))
}

/// Copies a faer matrix.
///
/// # Errors
/// [`Error::Shape`], `out` as it was.
pub fn from_faer<T: Element>(mut out: MatMut<'_, T>, a: faer::MatRef<'_, T>) -> Result<(), Error> {
    check_shape("out", &[a.nrows(), a.ncols()], &out.shape())?;
    for i in 0..a.nrows() {
        for j in 0..a.ncols() {
            out.set([i, j], a[(i, j)]);
        }
    }
    Ok(())
}
