//! Operations on contiguous rows, for packers and epilogues: masked at the end, never a scalar tail.

use crate::simd::Simd;
use num_traits::Float;

/// `dst <- alpha src + beta dst` over `n` elements; `beta = 0` does not read `dst`.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: `src` readable and `dst` writable for `n` elements.
#[inline(always)]
pub(crate) unsafe fn blend<T: Float, S: Simd<T>>(dst: *mut T, src: *const T, n: usize, alpha: T, beta: T) {
    // SAFETY: whole vectors while they fit, then a masked one of n - i < LANES elements.
    unsafe {
        let (a, b) = (S::splat(alpha), S::splat(beta));
        let overwrite = beta == T::zero();
        let one = |v, old| if overwrite { S::mul(a, v) } else { S::fma(a, v, S::mul(b, old)) };
        let mut i = 0;
        while i + S::LANES <= n {
            let old = if overwrite { a } else { S::load(dst.add(i)) };
            S::store(dst.add(i), one(S::load(src.add(i)), old));
            i += S::LANES;
        }
        if i < n {
            let old = if overwrite { a } else { S::load_first(dst.add(i), n - i) };
            S::store_first(dst.add(i), one(S::load_first(src.add(i), n - i), old), n - i);
        }
    }
}

/// `sum_i a_i b_i` over `n` elements, in `4 LANES` partial sums.
///
/// # Safety
/// As [`blend`], both readable for `n` elements.
#[inline(always)]
pub(crate) unsafe fn dot<T: Float, S: Simd<T>>(a: *const T, b: *const T, n: usize) -> T {
    // SAFETY: as in blend.
    unsafe {
        let mut sums = [S::splat(T::zero()); 4];
        let mut i = 0;
        while i + 4 * S::LANES <= n {
            for (u, sum) in sums.iter_mut().enumerate() {
                let at = i + u * S::LANES;
                *sum = S::fma(S::load(a.add(at)), S::load(b.add(at)), *sum);
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= n {
            sums[0] = S::fma(S::load(a.add(i)), S::load(b.add(i)), sums[0]);
            i += S::LANES;
        }
        if i < n {
            sums[1] = S::fma(S::load_first(a.add(i), n - i), S::load_first(b.add(i), n - i), sums[1]);
        }
        S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
    }
}

/// Copies `count` rows of `width` elements, `src_step` apart, into a panel: rows `step` apart, zeros up to `step`.
///
/// # Safety
/// As [`blend`], `src` readable for `width <= step` elements of each row, `dst` writable for `count * step`; `step` a multiple of LANES.
#[inline(always)]
pub(crate) unsafe fn copy_rows<T: Float, S: Simd<T>>(
    dst: *mut T,
    step: usize,
    src: *const T,
    src_step: isize,
    width: usize,
    count: usize,
) {
    // SAFETY: as in blend; the zeros end at step.
    unsafe {
        for row in 0..count {
            let (to, from) = (dst.add(row * step), src.offset(row as isize * src_step));
            let mut i = 0;
            while i + S::LANES <= width {
                S::store(to.add(i), S::load(from.add(i)));
                i += S::LANES;
            }
            if i < width {
                S::store(to.add(i), S::load_first(from.add(i), width - i));
                i += S::LANES;
            }
            while i < step {
                S::store(to.add(i), S::splat(T::zero()));
                i += S::LANES;
            }
        }
    }
}
