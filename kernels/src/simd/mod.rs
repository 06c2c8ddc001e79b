//! Lanes: the operations that every kernel is written in, and their three implementations.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;
pub(crate) mod vector;

/// Asks for the line at `p` ahead of its use. Any address will do: the hint is ignored where there is nothing to read.
#[inline(always)]
pub(crate) fn prefetch<T>(p: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch neither faults nor changes memory, and every x86-64 CPU has it.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

/// The same, into L2: for what comes next but one.
#[inline(always)]
pub(crate) fn prefetch_l2<T>(p: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

/// Elements of a cache line.
pub(crate) const fn line<T>() -> usize {
    64 / size_of::<T>()
}

/// Where up to 16 vectors lie, four by four: the first of each four, `usize::MAX` where there is none, and the step to the next.
pub(crate) struct Quads {
    pub(crate) at: [usize; 4],
    pub(crate) step: [usize; 4],
}

impl Quads {
    /// First element of vector `j`.
    #[inline(always)]
    pub(crate) fn vector(&self, j: usize) -> usize {
        self.at[j / 4] + j % 4 * self.step[j / 4]
    }
}

/// Vectors of `T` on one instruction set, with the register tile that suits its register file.
///
/// # Safety
/// Every method may be called only on a CPU that has the instruction set, from inside a function compiled for it:
/// the methods are `#[inline(always)]` and take their target features from the caller.
pub(crate) trait Simd<T: Copy>: Copy + 'static {
    /// A vector register.
    type V: Copy;
    /// Elements in a register.
    const LANES: usize;
    /// Registers in a row of the register tile; a packed panel is `LANES * VECTORS` wide.
    const VECTORS: usize;
    /// Rows of the register tile.
    const ROWS: usize;
    /// Whether [`fma`](Simd::fma) rounds once.
    const FUSED: bool;

    unsafe fn splat(x: T) -> Self::V;
    unsafe fn load(p: *const T) -> Self::V;
    unsafe fn store(p: *mut T, v: Self::V);
    /// The first `n <= LANES` elements; the rest are zero and not touched in memory.
    unsafe fn load_first(p: *const T, n: usize) -> Self::V;
    /// The first `n <= LANES` elements; the rest are not touched.
    unsafe fn store_first(p: *mut T, v: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`: rounded once where the instruction set has it, twice on the portable path.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Transposes a square of LANES: `dst[j * dst_step + i] <- src[i * src_step + j]`, whole columns, stored in the order of `j`: where they
    /// overlap, the later one stays.
    #[inline(always)]
    unsafe fn transpose_square(dst: *mut T, dst_step: usize, src: *const T, src_step: isize) {
        for j in 0..Self::LANES {
            for i in 0..Self::LANES {
                // SAFETY: the caller vouches for the square on both sides.
                unsafe { *dst.add(j * dst_step + i) = *src.offset(i as isize * src_step + j as isize) }
            }
        }
    }
    /// `c - a * b`, rounded as [`fma`](Simd::fma).
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn abs(v: Self::V) -> Self::V;
    /// In each lane `x` if `a <= b`, else (NaN too) `y`.
    unsafe fn select_le(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Correctly rounded quotients.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// Correctly rounded roots.
    unsafe fn sqrt(v: Self::V) -> Self::V;
    /// Bit `i` tells whether element `i` is positive and finite.
    unsafe fn positive(v: Self::V) -> u32;
    /// Transposes a stretch of LANES rows, each its own pointer: column `j` becomes a vector at `dst`, times `scale`, zero for `width <= j < LANES`;
    /// see [`Quads`]. `width` is not zero where LANES is at least 4.
    #[inline(always)]
    unsafe fn interleave(dst: *mut T, quads: &Quads, rows: *const *const T, start: usize, width: usize, scale: *const T)
    where
        T: num_traits::Float,
    {
        for j in (0..Self::LANES).filter(|&j| quads.at[j / 4] != usize::MAX) {
            for i in 0..Self::LANES {
                // SAFETY: the caller vouches for LANES rows, `width` elements of each, and for the vectors at `dst`.
                unsafe {
                    let value = if j < width { *(*rows.add(i)).add(start + j) } else { T::zero() };
                    *dst.add(quads.vector(j) + i) = *scale.add(i) * value;
                }
            }
        }
    }
    /// The inverse: `rows[i][start + j]` becomes element `i` of the vector `j` at `src`, for `j` in `wanted`, which is not empty. Null rows are left out;
    /// all quads are readable.
    #[inline(always)]
    unsafe fn deinterleave(
        rows: *const *mut T,
        start: usize,
        wanted: core::ops::Range<usize>,
        src: *const T,
        quads: &Quads,
    ) {
        for i in 0..Self::LANES {
            // SAFETY: the caller vouches for LANES rows, the elements wanted of each that is not null, and the vectors at `src`.
            unsafe {
                let row = *rows.add(i);
                for j in wanted.clone().filter(|_| !row.is_null()) {
                    *row.add(start + j) = *src.add(quads.vector(j) + i);
                }
            }
        }
    }
    /// Elements 0, 2, 4, .. of `a` followed by `b`.
    unsafe fn even(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all elements.
    unsafe fn sum(v: Self::V) -> T;
}
