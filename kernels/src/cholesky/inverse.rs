//! Damped factors and inverses.

use super::triangular::{lauum, lauum_scratch, trtri, trtri_scratch};
use super::{Pivot, potrf, potrf_scratch, small};
use crate::element::Element;
use crate::engine::epilogue::{Triangle, mirror_lower, scale_lower};
use crate::par::Par;
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

/// The lower triangle of `L` with `scale A + damping I = L L^T`; reads the lower triangle of `a`, writes that of `out`.
/// Scratch: [`potrf_scratch`].
///
/// # Errors
/// The first pivot that is not positive or not finite; `out` then holds an unfinished factor.
///
/// # Panics
/// If shapes disagree, or the scratch is too small.
pub fn damped_cholesky<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Pivot<T>> {
    assert_eq!(out.shape(), a.shape(), "damped_cholesky: shapes disagree");
    par.enter(|| {
        scale_lower(out.rb_mut(), scale, a, par);
        for i in 0..a.rows() {
            let damped = out.as_ref().at([i, i]) + damping;
            out.set([i, i], damped);
        }
        potrf(out, par, stack)
    })
}

/// `(scale A + damping I)^-1` of a symmetric matrix, by `L^-T L^-1`; reads the lower triangle of `a`. `n³ / 2` multiply-adds.
///
/// # Errors
/// The first pivot that is not positive or not finite; `out` then holds an unfinished factor, or what it held.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`damped_inverse_scratch`].
pub fn damped_inverse<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Pivot<T>> {
    if a.rows() <= small::SMALL {
        return small::damped_inverse(out, a, scale, damping, triangle, par.isa());
    }
    par.enter(|| {
        damped_cholesky(out.rb_mut(), a, scale, damping, par, stack)?;
        trtri(out.rb_mut(), par, stack);
        lauum(out.rb_mut(), par, stack);
        if triangle == Triangle::Full {
            mirror_lower(out, par);
        }
        Ok(())
    })
}

/// Scratch of [`damped_inverse`].
pub fn damped_inverse_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    potrf_scratch::<T>(n, par).or(trtri_scratch::<T>(n, par)).or(lauum_scratch::<T>(n, par))
}
