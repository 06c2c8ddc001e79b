//! Lanes: the operations that every kernel is written in, and their three implementations.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;
pub(crate) mod squares;
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

/// Vectors that lie evenly apart.
pub(crate) const QUAD: usize = 4;

/// The most elements of a part of a vector, see [`Simd::SIDE`].
pub(crate) const SIDES: usize = 4;

/// Where up to 16 vectors lie, four by four: the first of each four, and the step to the next, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Quads {
    pub(crate) at: [usize; 4],
    pub(crate) step: [usize; 4],
}

impl Quads {
    pub(crate) const NONE: Quads = Quads { at: [0; 4], step: [0; 4] };

    /// The four vectors from element `at` on.
    #[inline(always)]
    pub(crate) fn set<T>(&mut self, q: usize, (at, step): (usize, usize)) {
        (self.at[q], self.step[q]) = (at * size_of::<T>(), step * size_of::<T>());
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
    /// Elements of a part of a vector, which shuffles inside parts do not leave: at most [`SIDES`].
    const SIDE: usize;
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
    /// Elements `wanted` only; the others are not touched.
    unsafe fn store_range(p: *mut T, v: Self::V, wanted: core::ops::Range<usize>);
    /// A vector of parts, each SIDE elements from its own address: the first LANES / SIDE addresses.
    unsafe fn gather(from: &[*const T; 16]) -> Self::V;
    /// The same of the first `n < SIDE` elements of each part; the rest are zero and not touched in memory. `n` is not zero.
    unsafe fn gather_first(from: &[*const T; 16], n: usize) -> Self::V;
    /// Transposes, inside each part, the square of the first SIDE vectors.
    unsafe fn turn(v: [Self::V; SIDES]) -> [Self::V; SIDES];
    /// `1 / sqrt(v)` of positive numbers within two roundings, as of a root and a quotient. Other numbers give anything.
    #[inline(always)]
    unsafe fn reciprocal_root(v: Self::V) -> Self::V
    where
        T: num_traits::Float,
    {
        // SAFETY: the caller's contract.
        unsafe { Self::div(Self::splat(T::one()), Self::sqrt(v)) }
    }
    /// Elements 0, 2, 4, .. of `a` followed by `b`.
    unsafe fn even(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all elements.
    unsafe fn sum(v: Self::V) -> T;
    /// `v`, known before any load or pinned value that follows: keeps a compiler from moving loads ahead until registers run out.
    #[inline(always)]
    unsafe fn pin(v: Self::V) -> Self::V {
        v
    }
}
