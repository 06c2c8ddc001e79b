//! Steps in the factors' eigenbases: exact damping and EK-FAC.

use super::apply::{Factor, Gradient, apply, step_scratch};
use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use foof_kernels::product::product;

/// Eigenvalues and eigenvectors of a symmetric matrix, `A = Q diag(a) Q^T`.
#[derive(Clone, Copy, Debug)]
pub struct Eigenbasis<'a, T> {
    /// `a`, `n` values.
    pub values: &'a [T],
    /// `Q`, `[n, n]`, an eigenvector in each column.
    pub vectors: MatRef<'a, T>,
}

/// What a projected gradient is divided by, before damping.
pub(crate) enum Denominators<'a, T> {
    /// `b_o a_i`
    Products(&'a [T], &'a [T]),
    /// Second moments, `[o, i]`.
    Moments(MatRef<'a, T>),
}

/// Exact damping (Benzing 2022, equation 3): `out <- beta out + alpha Q_B ((Q_B^T U Q_A) / (b a^T + lambda)) Q_A^T`, which is
/// `(B ⊗ A + lambda I)^-1 vec(U)`, for `out` `[o, i]`. The projection follows a [`Plan`](super::Plan); the way back costs
/// `o i (o + i)` multiply-adds.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`] for damping that is not positive and finite, [`Error::Scratch`]; `out` as it was.
#[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
pub fn exact_step<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Eigenbasis<'_, T>,
    error: Eigenbasis<'_, T>,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let denominators = Denominators::Products(error.values, input.values);
    eigen_step(out, blend, gradient, [input.vectors, error.vectors], denominators, damping, par, stack)
}

/// EK-FAC's step (George et al. 2018): as [`exact_step`] with `moments` `[o, i]`, `mean_n (Q_B^T G_n Q_A)²`, in place of `b a^T`. Takes the
/// eigenvectors `Q_A` `[i, i]` and `Q_B` `[o, o]`.
///
/// # Errors
/// As [`exact_step`].
#[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
pub fn ekfac_step<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: MatRef<'_, T>,
    error: MatRef<'_, T>,
    moments: MatRef<'_, T>,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    eigen_step(out, blend, gradient, [input, error], Denominators::Moments(moments), damping, par, stack)
}

#[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
pub(crate) fn eigen_step<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    [q_a, q_b]: [MatRef<'_, T>; 2],
    denominators: Denominators<'_, T>,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [o, i] = out.shape();
    match denominators {
        Denominators::Products(b, a) => {
            check_shape("input values", &[i], &[a.len()])?;
            check_shape("error values", &[o], &[b.len()])?;
        }
        Denominators::Moments(moments) => check_shape("moments", &[o, i], &moments.shape())?,
    }
    check_shape("input vectors", &[i, i], &q_a.shape())?;
    check_shape("error vectors", &[o, o], &q_b.shape())?;
    gradient.check([o, i])?;
    let positive = damping > T::zero() && damping.is_finite();
    check_parameter("damping", damping.to_f64(), positive, "a positive finite number")?;
    check_scratch(stack, eigen_step_scratch::<T>([o, i], gradient.rows(), par))?;
    let (mut projected, stack) = temporary::<T>(stack, o * i);
    let mut projected = MatMut::new(&mut projected, [o, i])?;
    let project = (Factor::Inverse(q_a), Some(Factor::Inverse(q_b.transpose())));
    apply(projected.rb_mut(), Blend::set(T::one()), gradient, project.0, project.1, par, stack);
    for row in 0..o {
        for col in 0..i {
            let curvature = match denominators {
                Denominators::Products(b, a) => b[row] * a[col],
                Denominators::Moments(moments) => moments.at([row, col]),
            };
            let value = projected.as_ref().at([row, col]) / (curvature + damping);
            projected.set([row, col], value);
        }
    }
    let (mut back, stack) = temporary::<T>(stack, o * i);
    let mut back = MatMut::new(&mut back, [o, i])?;
    product(back.rb_mut(), Blend::set(T::one()), q_b, projected.as_ref(), par, stack);
    product(out, blend, back.as_ref(), q_a.transpose(), par, stack);
    Ok(())
}

/// Scratch of [`exact_step`] and [`ekfac_step`] for an output of `shape` `[o, i]` and a low-rank gradient of `rows` rows, or a matrix.
pub fn eigen_step_scratch<T: Element>(shape: [usize; 2], rows: Option<usize>, par: Par) -> StackReq {
    temporary_scratch::<T>(shape[0] * shape[1]).and(step_scratch::<T>(shape, rows, par))
}

/// [`exact_step`] with scratch of its own.
///
/// # Errors
/// As [`exact_step`].
pub fn exact_step_alloc<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Eigenbasis<'_, T>,
    error: Eigenbasis<'_, T>,
    damping: T,
    par: Par,
) -> Result<(), Error> {
    let req = eigen_step_scratch::<T>(out.shape(), gradient.rows(), par);
    with_scratch(req, |stack| exact_step(out, blend, gradient, input, error, damping, par, stack))
}

/// [`ekfac_step`] with scratch of its own.
///
/// # Errors
/// As [`exact_step`].
#[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
pub fn ekfac_step_alloc<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: MatRef<'_, T>,
    error: MatRef<'_, T>,
    moments: MatRef<'_, T>,
    damping: T,
    par: Par,
) -> Result<(), Error> {
    let req = eigen_step_scratch::<T>(out.shape(), gradient.rows(), par);
    with_scratch(req, |stack| ekfac_step(out, blend, gradient, input, error, moments, damping, par, stack))
}
