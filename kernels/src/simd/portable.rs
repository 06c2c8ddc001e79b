//! Plain Rust on small arrays, which compilers turn into the vectors of any baseline (SSE2, NEON).
//! Multiplies and adds: `mul_add` is a library call where the baseline has no FMA.

use super::{SIDES, Simd};
use core::ops::{Add, Div, Mul, Sub};

#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Sums halves: a chain of log2(L) additions.
#[inline(always)]
pub(crate) fn pairwise_sum<T: Copy + Add<Output = T>, const L: usize>(mut lanes: [T; L]) -> T {
    let mut half = L / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Elements 0, 2, 4, .. of both, which compilers turn into shuffles.
#[inline(always)]
pub(crate) fn even<T: Copy, const L: usize>(a: [T; L], b: [T; L]) -> [T; L] {
    core::array::from_fn(|i| if 2 * i < L { a[2 * i] } else { b[2 * i - L] })
}

#[inline(always)]
fn zip<T: Copy, const L: usize>(a: [T; L], b: [T; L], f: impl Fn(T, T) -> T) -> [T; L] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

macro_rules! portable {
    ($t:ident, $lanes:literal) => {
        impl Simd<$t> for Portable {
            type V = [$t; $lanes];
            const LANES: usize = $lanes;
            const VECTORS: usize = 2;
            const ROWS: usize = 4;
            const SIDE: usize = 1;
            const FUSED: bool = false;

            #[inline(always)]
            unsafe fn splat(x: $t) -> Self::V {
                [x; $lanes]
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self::V {
                // SAFETY: the caller vouches for LANES readable elements.
                unsafe { p.cast::<Self::V>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $t, v: Self::V) {
                // SAFETY: the caller vouches for LANES writable elements.
                unsafe { p.cast::<Self::V>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn load_first(p: *const $t, n: usize) -> Self::V {
                // SAFETY: the caller vouches for n readable elements.
                core::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
            }
            #[inline(always)]
            unsafe fn store_first(p: *mut $t, v: Self::V, n: usize) {
                for (i, &x) in v.iter().enumerate().take(n) {
                    // SAFETY: the caller vouches for n writable elements.
                    unsafe { *p.add(i) = x }
                }
            }
            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, Add::add)
            }
            #[inline(always)]
            unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, Mul::mul)
            }
            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                zip(zip(a, b, Mul::mul), c, Add::add)
            }
            #[inline(always)]
            unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                zip(c, zip(a, b, Mul::mul), Sub::sub)
            }
            #[inline(always)]
            unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, Sub::sub)
            }
            #[inline(always)]
            unsafe fn abs(v: Self::V) -> Self::V {
                v.map($t::abs)
            }
            #[inline(always)]
            unsafe fn select_le(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
                core::array::from_fn(|i| if a[i] <= b[i] { x[i] } else { y[i] })
            }
            #[inline(always)]
            unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
                zip(a, b, Div::div)
            }
            #[inline(always)]
            unsafe fn sqrt(v: Self::V) -> Self::V {
                v.map($t::sqrt)
            }
            #[inline(always)]
            unsafe fn positive(v: Self::V) -> u32 {
                (0..$lanes).map(|i| u32::from(v[i] > 0.0 && v[i] < $t::INFINITY) << i).sum()
            }
            #[inline(always)]
            unsafe fn store_range(p: *mut $t, v: Self::V, wanted: core::ops::Range<usize>) {
                for i in wanted {
                    // SAFETY: the caller vouches for these elements.
                    unsafe { *p.add(i) = v[i] }
                }
            }
            #[inline(always)]
            unsafe fn gather(from: &[*const $t; 16]) -> Self::V {
                // SAFETY: the caller vouches for LANES addresses.
                core::array::from_fn(|i| unsafe { *from[i] })
            }
            #[inline(always)]
            unsafe fn gather_first(from: &[*const $t; 16], _: usize) -> Self::V {
                // SAFETY: as above: an element has no part.
                unsafe { Self::gather(from) }
            }
            #[inline(always)]
            unsafe fn turn(v: [Self::V; SIDES]) -> [Self::V; SIDES] {
                v
            }
            #[inline(always)]
            unsafe fn even(a: Self::V, b: Self::V) -> Self::V {
                even(a, b)
            }
            #[inline(always)]
            unsafe fn sum(v: Self::V) -> $t {
                pairwise_sum(v)
            }
        }
    };
}

portable!(f32, 4);
portable!(f64, 2);
