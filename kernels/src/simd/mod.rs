//! Lanes: the dozen operations that every kernel is written in, and their three implementations.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

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

/// Elements of a cache line.
pub(crate) const fn line<T>() -> usize {
    64 / size_of::<T>()
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
    /// Correctly rounded quotients.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
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
    /// Elements 0, 2, 4, .. of `a` followed by `b`.
    unsafe fn even(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all elements.
    unsafe fn sum(v: Self::V) -> T;
}
