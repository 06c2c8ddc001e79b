//! The triangle of one strip: what is left of a register tile's rows once all earlier rows have been subtracted.
//!
//! ```text
//!   factor   x_t <- (x_t - sums_t - sum_(s<t) l_ts x_s) / l_tt,  l_ts read from the strip itself, l_tt the root of its pivot
//!   solve    the same with a given l
//! ```
//!
//! A strip has M rows (`mr`) of V vectors; lanes are rows of the matrix, rows its columns. Per lane `M² / 2` multiply-adds and M quotients, in
//! registers. Quotients are rounded once: by a reciprocal and a correction where multiply-adds are fused, divided elsewhere.

use crate::simd::Simd;
use num_traits::Float;

/// Where a strip and its triangle lie. Row `t` is step `t` of the substitution, whichever way it goes: steps may be negative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip<T> {
    /// The right-hand sides, overwritten.
    pub(crate) x: *mut T,
    pub(crate) x_step: isize,
    /// Whether right-hand sides are there; else they are zero, and `x` is only written.
    pub(crate) given: bool,
    /// What earlier rows contribute.
    pub(crate) sums: *const T,
    pub(crate) sums_step: isize,
    /// Entry (t, s) of the triangle: `l + t row + s col`.
    pub(crate) l: *const T,
    pub(crate) row: isize,
    pub(crate) col: isize,
    /// `1 / l_tt`.
    pub(crate) reciprocals: *mut T,
    pub(crate) reciprocals_step: isize,
}

/// See [`solve`] and [`factor`].
pub(crate) type SolveFn<T> = unsafe fn(&Strip<T>);
pub(crate) type FactorFn<T> = unsafe fn(&Strip<T>, diagonal: usize) -> usize;

/// `a / b`, correctly rounded (but for subnormal remainders): Markstein's correction of `a fl(1/b)` by its exact remainder.
///
/// # Safety
/// As [`solve`].
#[inline(always)]
unsafe fn quotient<T: Float, S: Simd<T>>(a: S::V, b: T, reciprocal: T) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let b = S::splat(b);
        if !S::FUSED {
            return S::div(a, b);
        }
        let r = S::splat(reciprocal);
        let q = S::mul(a, r);
        S::fma(S::fnma(q, b, a), r, q)
    }
}

/// `x_t - sums_t` of every row.
///
/// # Safety
/// As [`solve`].
#[inline(always)]
unsafe fn load<T: Float, S: Simd<T>, const M: usize, const V: usize>(strip: &Strip<T>) -> [[S::V; V]; M] {
    // SAFETY: the caller's contract.
    unsafe {
        let (zero, one) = (S::splat(T::zero()), S::splat(T::one()));
        let mut rows = [[one; V]; M];
        for (t, row) in rows.iter_mut().enumerate() {
            let x = strip.x.offset(t as isize * strip.x_step);
            let sums = strip.sums.offset(t as isize * strip.sums_step);
            for (v, vector) in row.iter_mut().enumerate() {
                let given = if strip.given { S::load(x.add(v * S::LANES)) } else { zero };
                *vector = S::fnma(S::load(sums.add(v * S::LANES)), one, given);
            }
        }
        rows
    }
}

/// Substitution with a given triangle.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: M rows of V vectors are readable in `sums` and writable in `x`, the
/// triangle and its reciprocals readable, and none of these written by this strip overlaps another.
#[inline(always)]
pub(crate) unsafe fn solve<T: Float, S: Simd<T>, const M: usize, const V: usize>(strip: &Strip<T>) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut rows = load::<T, S, M, V>(strip);
        for t in 0..M {
            let l = strip.l.offset(t as isize * strip.row);
            let at = |s: usize| *l.offset(s as isize * strip.col);
            let reciprocal = *strip.reciprocals.offset(t as isize * strip.reciprocals_step);
            let x = strip.x.offset(t as isize * strip.x_step);
            let (done, rest) = rows.split_at_mut(t);
            for (v, vector) in rest[0].iter_mut().enumerate() {
                for (s, row) in done.iter().enumerate() {
                    *vector = S::fnma(S::splat(at(s)), row[v], *vector);
                }
                *vector = quotient::<T, S>(*vector, at(t), reciprocal);
                S::store(x.add(v * S::LANES), *vector);
            }
        }
    }
}

/// Substitution with the strip's own triangle: row `t` of the matrix is lane `diagonal + t`, and its pivot the entry there of row `t`.
/// Lanes above the diagonal become zero; reciprocals are written. Returns the first row whose pivot is not positive and finite, which then
/// holds it, else M.
///
/// # Safety
/// As [`solve`], with `reciprocals` writable; lanes up to `diagonal + M` exist. `l` is not read.
#[inline(always)]
pub(crate) unsafe fn factor<T: Float, S: Simd<T>, const M: usize, const V: usize>(
    strip: &Strip<T>,
    diagonal: usize,
) -> usize {
    // SAFETY: the caller's contract.
    unsafe {
        let mut rows = load::<T, S, M, V>(strip);
        for t in 0..M {
            let lane = diagonal + t;
            let x = strip.x.offset(t as isize * strip.x_step);
            let (done, rest) = rows.split_at_mut(t);
            for (s, row) in done.iter().enumerate() {
                let l = S::splat(*strip.x.offset(s as isize * strip.x_step).add(lane));
                for (vector, &earlier) in rest[0].iter_mut().zip(row) {
                    *vector = S::fnma(l, earlier, *vector);
                }
            }
            for (v, &vector) in rest[0].iter().enumerate() {
                S::store(x.add(v * S::LANES), vector);
            }
            let pivot = *x.add(lane);
            if !(pivot > T::zero() && pivot.is_finite()) {
                return t;
            }
            let root = pivot.sqrt();
            let reciprocal = root.recip();
            for (v, vector) in rest[0].iter_mut().enumerate() {
                *vector = quotient::<T, S>(*vector, root, reciprocal);
                S::store(x.add(v * S::LANES), *vector);
            }
            *x.add(lane) = root;
            for above in 0..lane {
                *x.add(above) = T::zero();
            }
            *strip.reciprocals.offset(t as isize * strip.reciprocals_step) = reciprocal;
        }
        M
    }
}
