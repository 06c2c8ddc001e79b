//! Operations on contiguous rows, for packers and epilogues: masked at the end, never a scalar tail.

use crate::simd::{Simd, line, prefetch, squares};
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

/// How far ahead rows are prefetched where they are short, and where they are long.
const ROWS_AHEAD: isize = 12;
const LINES_AHEAD: usize = 4;

/// `dst <- dst + src²` over `n` elements.
///
/// # Safety
/// As [`blend`].
#[inline(always)]
pub(crate) unsafe fn add_squares<T: Float, S: Simd<T>>(dst: *mut T, src: *const T, n: usize) {
    // SAFETY: as in blend.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            let x = S::load(src.add(i));
            S::store(dst.add(i), S::fma(x, x, S::load(dst.add(i))));
            i += S::LANES;
        }
        if i < n {
            let x = S::load_first(src.add(i), n - i);
            S::store_first(dst.add(i), S::fma(x, x, S::load_first(dst.add(i), n - i)), n - i);
        }
    }
}

/// `dst <- dst src` over `n` elements.
///
/// # Safety
/// As [`blend`].
#[inline(always)]
pub(crate) unsafe fn multiply<T: Float, S: Simd<T>>(dst: *mut T, src: *const T, n: usize) {
    // SAFETY: as in blend.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(dst.add(i), S::mul(S::load(src.add(i)), S::load(dst.add(i))));
            i += S::LANES;
        }
        if i < n {
            let product = S::mul(S::load_first(src.add(i), n - i), S::load_first(dst.add(i), n - i));
            S::store_first(dst.add(i), product, n - i);
        }
    }
}

/// See [`add_products`].
pub(crate) type AddProductsFn<T> = unsafe fn(*mut T, (*const T, usize), (*const T, usize), usize, usize);

/// `sums[c] <- sums[c] + sum_r a[r][c] b[r][c]` for `c < n`, `count` rows `a_step` and `b_step` apart, added in their order.
///
/// # Safety
/// As [`blend`]: `n` a multiple of LANES; both readable and `sums` writable for that many elements of each row.
#[inline(always)]
pub(crate) unsafe fn add_products<T: Float, S: Simd<T>>(
    sums: *mut T,
    (a, a_step): (*const T, usize),
    (b, b_step): (*const T, usize),
    n: usize,
    count: usize,
) {
    // SAFETY: whole vectors of each row.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            let mut sum = S::load(sums.add(i));
            for r in 0..count {
                sum = S::fma(S::load(a.add(r * a_step + i)), S::load(b.add(r * b_step + i)), sum);
            }
            S::store(sums.add(i), sum);
        }
    }
}

/// `sum_i a_i b_i` over `n` elements, in one sum for each lane.
///
/// # Safety
/// As [`blend`]: both readable for `n` elements.
#[inline(always)]
pub(crate) unsafe fn dot<T: Float, S: Simd<T>>(a: *const T, b: *const T, n: usize) -> T {
    // SAFETY: as in blend.
    unsafe {
        let (mut sum, mut i) = (S::splat(T::zero()), 0);
        while i + S::LANES <= n {
            sum = S::fma(S::load(a.add(i)), S::load(b.add(i)), sum);
            i += S::LANES;
        }
        if i < n {
            sum = S::fma(S::load_first(a.add(i), n - i), S::load_first(b.add(i), n - i), sum);
        }
        S::sum(sum)
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
            // Short pieces of rows far apart: hardware prefetchers see no stream.
            let ahead = from.wrapping_offset(ROWS_AHEAD * src_step);
            (0..=width).step_by(line::<T>()).for_each(|i| prefetch(ahead.wrapping_add(i)));
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

/// Copies `count` rows of `width` elements, `src_step` apart, to rows `dst_step` apart.
///
/// # Safety
/// As [`blend`]: `src` readable and `dst` writable for `width` elements of each row.
#[inline(always)]
pub(crate) unsafe fn copy_block<T: Float, S: Simd<T>>(
    dst: *mut T,
    dst_step: usize,
    src: *const T,
    src_step: isize,
    width: usize,
    count: usize,
) {
    // SAFETY: as in blend.
    unsafe {
        for row in 0..count {
            let (to, from) = (dst.add(row * dst_step), src.offset(row as isize * src_step));
            let mut i = 0;
            while i + S::LANES <= width {
                S::store(to.add(i), S::load(from.add(i)));
                i += S::LANES;
            }
            if i < width {
                S::store_first(to.add(i), S::load_first(from.add(i), width - i), width - i);
            }
        }
    }
}

/// As [`copy_block`], of every second element of the source rows.
///
/// # Safety
/// As [`copy_block`], `src` readable for `2 width - 1` elements of each row.
#[inline(always)]
pub(crate) unsafe fn copy_even<T: Float, S: Simd<T>>(
    dst: *mut T,
    dst_step: usize,
    src: *const T,
    src_step: isize,
    width: usize,
    count: usize,
) {
    // SAFETY: the last of n elements is 2 n - 1 from the first; the rest as in blend.
    unsafe {
        for row in 0..count {
            let (to, from) = (dst.add(row * dst_step), src.offset(row as isize * src_step));
            for i in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - i);
                let (from, reach) = (from.add(2 * i), 2 * n - 1);
                let whole = reach >= S::LANES;
                let low = if whole { S::load(from) } else { S::load_first(from, reach) };
                let high = S::load_first(from.add(if whole { S::LANES } else { 0 }), reach.saturating_sub(S::LANES));
                let even = S::even(low, high);
                if n == S::LANES { S::store(to.add(i), even) } else { S::store_first(to.add(i), even, n) }
            }
        }
    }
}

/// Transposes: `dst[j * dst_step + i] <- src[i * src_step + j]` for `i < rows`, `j < cols`. Squares of LANES in registers,
/// single elements at the edges.
///
/// # Safety
/// As [`blend`]: `src` readable and `dst` writable at those places.
#[inline(always)]
pub(crate) unsafe fn transpose<T: Float, S: Simd<T>>(
    dst: *mut T,
    dst_step: usize,
    src: *const T,
    src_step: isize,
    rows: usize,
    cols: usize,
) {
    // SAFETY: squares lie inside rows x cols; the rest is done element by element inside it.
    unsafe {
        let whole_cols = cols / S::LANES * S::LANES;
        let whole_rows = rows / S::LANES * S::LANES;
        for i in (0..whole_rows).step_by(S::LANES) {
            let from = src.offset(i as isize * src_step);
            for j in (0..whole_cols).step_by(S::LANES) {
                for e in 0..S::LANES as isize {
                    prefetch(from.wrapping_offset(e * src_step).wrapping_add(j + LINES_AHEAD * line::<T>()));
                }
                squares::transpose::<T, S>(dst.add(j * dst_step + i), dst_step, from.add(j), src_step);
            }
            for j in whole_cols..cols {
                for e in 0..S::LANES {
                    *dst.add(j * dst_step + i + e) = *from.offset(e as isize * src_step + j as isize);
                }
            }
        }
        for i in whole_rows..rows {
            let from = src.offset(i as isize * src_step);
            for j in 0..cols {
                *dst.add(j * dst_step + i) = *from.add(j);
            }
        }
    }
}

/// [`CHAINS`] independent chains of `rounds` FMAs on registers: `2 CHAINS LANES rounds` operations and no memory, the machine's peak.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it.
#[inline(always)]
pub(crate) unsafe fn fma_chains<T: Float, S: Simd<T>>(rounds: usize) -> T {
    // SAFETY: registers only.
    unsafe {
        let half = core::hint::black_box(T::one() / (T::one() + T::one()));
        let factor = S::splat(half);
        let mut sums = [factor; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = S::fma(*sum, factor, factor);
            }
        }
        let mut total = sums[0];
        for &sum in &sums[1..] {
            total = S::add(total, sum);
        }
        S::sum(total)
    }
}

/// Chains of [`fma_chains`]: more than latency (4 cycles) times FMA pipes (2), fewer than the 16 registers of AVX2.
pub(crate) const CHAINS: usize = 12;
