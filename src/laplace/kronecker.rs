//! Samples of posteriors that Kronecker factors approximate, one layer at a time.

use crate::dense::{blend_into, check_finite, with_scratch};
use crate::error::{check_parameter, check_shape};
use crate::kronecker::Eigenbasis;
use crate::product::product_alloc;
use crate::{Blend, Element, Error, MatMut, MatRef, Par, Sampler};
use foof_kernels::cholesky::{solve_lower_transposed, solve_scratch};

/// `out <- W_MAP + Q_B (Z / sqrt(n b a^T + delta)) Q_A^T` with `Z` of standard normals: a sample of `N(W_MAP, (n B ⊗ A + delta I)^-1)`, for the
/// eigenbases `A = Q_A diag(a) Q_A^T` `[i, i]` and `B = Q_B diag(b) Q_B^T` `[o, o]` of a layer's factors, means over `n` datapoints, and
/// `mean` and `out` `[o, i]`. Ritter, Botev & Barber 2018; negative eigenvalues, which rounding makes, count as zero. `o i (o + i)` multiply-adds.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] for `n` that is negative or not finite, or a prior precision `delta` that is not positive and finite;
/// [`Error::NotFinite`]; `out` and the sampler as they were.
#[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
pub fn kronecker_sample_alloc<T: Element>(
    mut out: MatMut<'_, T>,
    mean: MatRef<'_, T>,
    input: Eigenbasis<'_, T>,
    error: Eigenbasis<'_, T>,
    n: T,
    prior_precision: T,
    sampler: &mut Sampler,
    par: Par,
) -> Result<(), Error> {
    let shape @ [o, i] = mean.shape();
    check_shape("out", &shape, &out.shape())?;
    for (name, basis, d) in [("input.vectors", &input, i), ("error.vectors", &error, o)] {
        check_shape(name, &[d, d], &basis.vectors.shape())?;
        check_finite(name, basis.vectors)?;
    }
    for (name, basis, d) in [("input.values", &input, i), ("error.values", &error, o)] {
        check_shape(name, &[d], &[basis.values.len()])?;
        check_finite(name, MatRef::new(basis.values, [1, d])?)?;
    }
    check_finite("mean", mean)?;
    let valid = n >= T::zero() && n.is_finite();
    check_parameter("n", Element::to_f64(n), valid, "a finite number, not negative")?;
    check_precision(prior_precision)?;
    let mut z = vec![T::zero(); o * i];
    sampler.normals(&mut z);
    let value = |value: T| if value > T::zero() { value } else { T::zero() };
    for (row, &b) in z.chunks_exact_mut(i.max(1)).zip(error.values) {
        for (z, &a) in row.iter_mut().zip(input.values) {
            *z /= (n * value(b) * value(a) + prior_precision).sqrt();
        }
    }
    let mut half = vec![T::zero(); o * i];
    let z = MatRef::new(&z, shape)?;
    product_alloc(MatMut::new(&mut half, shape)?, Blend::set(T::one()), error.vectors, z, par)?;
    out.copy_from(mean);
    let half = MatRef::new(&half, shape)?;
    product_alloc(out, Blend::add(T::one()), half, input.vectors.transpose(), par)
}

/// `out <- W_MAP + Z L^-1` with `Z` of standard normals: a sample of `N(W_MAP, I ⊗ (L L^T)^-1)`, for the Cholesky factor `L` of `n A + delta I`
/// ([`damped_cholesky`](crate::inverse::damped_cholesky) of the input factor `A` with scale `n` and damping `delta`), `mean` and `out`
/// `[o, i]`: the posterior of FOOF's one factor (Benzing 2022, appendix G). `o i² / 2` multiply-adds.
///
/// # Errors
/// [`Error::Shape`]; [`Error::NotFinite`] `mean`; [`Error::NotPositiveDefinite`] for a diagonal entry of `l` that is not positive and finite;
/// `out` and the sampler as they were.
pub fn input_factor_sample_alloc<T: Element>(
    mut out: MatMut<'_, T>,
    mean: MatRef<'_, T>,
    l: MatRef<'_, T>,
    sampler: &mut Sampler,
    par: Par,
) -> Result<(), Error> {
    let shape @ [o, i] = mean.shape();
    check_shape("out", &shape, &out.shape())?;
    check_shape("l", &[i, i], &l.shape())?;
    check_finite("mean", mean)?;
    crate::inverse::log_det(l)?;
    let mut z = vec![T::zero(); o * i];
    sampler.normals(&mut z);
    // Z L^-1 is the transposed solution of L^T X = Z^T.
    let z_view = MatMut::new(&mut z, shape)?.transpose();
    with_scratch(solve_scratch::<T>(i, o, par), |stack| solve_lower_transposed(l, z_view, par, stack));
    out.copy_from(mean);
    blend_into(out, Blend::add(T::one()), MatRef::new(&z, shape)?, par);
    Ok(())
}

fn check_precision<T: Element>(delta: T) -> Result<(), Error> {
    let valid = delta > T::zero() && delta.is_finite();
    check_parameter("prior_precision", Element::to_f64(delta), valid, "a positive finite number")
}
