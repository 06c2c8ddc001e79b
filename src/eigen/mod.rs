//! Eigendecompositions `A = Q diag(a) Q^T` of symmetric matrices: of one matrix by faer, of many small ones by kernels of our own.

mod batched;
mod mixed;

pub use batched::{
    BATCHED_MAX, batched_symmetric_eigen, batched_symmetric_eigen_alloc, batched_symmetric_eigen_scratch,
};

pub(crate) use mixed::{Eigen, self_adjoint_eigens, self_adjoint_eigens_scratch};

use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MatMut, MatRef, MemStack, StackReq};
use core::any::TypeId;
use faer::linalg::evd::{ComputeEigenvectors, SelfAdjointEvdParams, self_adjoint_evd, self_adjoint_evd_scratch};

/// Eigenvalues (ascending) and eigenvectors (columns of `vectors`) of `scale A`, symmetric `[n, n]`, of which the lower triangle is read.
/// Runs on the calling thread: faer's bits would depend on the number of threads. Decompose several matrices at once instead, as the
/// optimisers do. About `9 n³` operations.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`] (of `scale A`), [`Error::Scratch`], [`Error::NoConvergence`]; outputs as they
/// were.
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
    check_finite_lower("a", a, scale)?;
    if n == 0 {
        return Ok(());
    }
    let (mut columns, stack) = temporary::<T>(stack, n * n);
    let (mut found_values, stack) = temporary::<T>(stack, n);
    // faer is slow, and rounds differently, where columns are not contiguous.
    let mut found = MatMut::strided(&mut columns, 0, [n, n], [1, n as isize])?;
    match a.cast::<f32>() {
        Some(a) => decompose::<f32>(cast(&mut found_values), found.rb_mut().cast(), Some(a), stack),
        None => decompose::<f64>(cast(&mut found_values), found.rb_mut().cast(), a.cast(), stack),
    }?;
    // The eigenvectors of scale A are those of A.
    values.iter_mut().zip(&*found_values).for_each(|(value, &found)| *value = scale * found);
    vectors.copy_from(found.as_ref());
    Ok(())
}

/// The first entry of the lower triangle of `scale A` that is NaN or infinite is an error.
pub(crate) fn check_finite_lower<T: Element>(argument: &'static str, a: MatRef<'_, T>, scale: T) -> Result<(), Error> {
    let entries = (0..a.rows()).flat_map(|i| (0..=i).map(move |j| [i, j]));
    match entries.into_iter().find(|&index| !(scale * a.at(index)).is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { argument, index: index.to_vec() }),
    }
}

fn cast<T: Element, R: Element>(slice: &mut [T]) -> &mut [R] {
    bytemuck::cast_slice_mut(slice)
}

/// [`Element`] is `f32` or `f64`, and the views are of that type; faer's traits stay out of our signatures.
fn decompose<R: faer::traits::RealField>(
    values: &mut [R],
    vectors: Option<MatMut<'_, R>>,
    a: Option<MatRef<'_, R>>,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let (Some(vectors), Some(a)) = (vectors, a) else { unreachable!("an element type that is neither f32 nor f64") };
    let size = a.rows();
    let values = faer::ColMut::from_slice_mut(values).as_diagonal_mut();
    self_adjoint_evd(a.into(), values, Some(vectors.into()), faer::Par::Seq, stack, settings::<R>())
        .map_err(|_| Error::NoConvergence { size })
}

/// Scratch of [`self_adjoint_eigen`] of an `[n, n]` matrix.
pub fn self_adjoint_eigen_scratch<T: Element>(n: usize) -> StackReq {
    // faer counts down from n - 1.
    if n == 0 {
        return StackReq::empty();
    }
    let faer = if TypeId::of::<T>() == TypeId::of::<f32>() { faer_scratch::<f32>(n) } else { faer_scratch::<f64>(n) };
    temporary_scratch::<T>(n * n).and(temporary_scratch::<T>(n)).and(faer)
}

/// Order below which faer leaves divide and conquer for QR iterations. Half its default takes a half to nine tenths of the time at orders 128
/// to 512.
const RECURSION: usize = 64;

fn settings<R: faer::traits::RealField>() -> faer::Spec<SelfAdjointEvdParams, R> {
    let defaults = <SelfAdjointEvdParams as faer::Auto<R>>::auto();
    faer::Spec::new(SelfAdjointEvdParams { recursion_threshold: RECURSION, ..defaults })
}

fn faer_scratch<R: faer::traits::RealField>(n: usize) -> StackReq {
    self_adjoint_evd_scratch::<R>(n, ComputeEigenvectors::Yes, faer::Par::Seq, settings::<R>())
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
    let req = self_adjoint_eigen_scratch::<T>(a.rows());
    with_scratch(req, |stack| self_adjoint_eigen(values, vectors, a, scale, stack))
}
