//! AVX-512F: 32 registers of 16 `f32` or 8 `f64`. The register tile is 8 rows of 3 vectors: 24 accumulators, 3 + 8 loads for 24 FMAs.

use super::Simd;
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

macro_rules! avx512 {
    ($t:ident, $v:ident, $lanes:literal, $mask:ident, $set:ident, $load:ident, $store:ident, $maskz:ident, $mask_store:ident,
     $add:ident, $mul:ident, $fma:ident, $sum:ident) => {
        // SAFETY of every body: the trait's contract gives the instruction set; pointers are the caller's to vouch for.
        impl Simd<$t> for Avx512 {
            type V = $v;
            const LANES: usize = $lanes;
            const VECTORS: usize = 3;
            const ROWS: usize = 8;

            #[inline(always)]
            unsafe fn splat(x: $t) -> $v {
                // SAFETY: see above.
                unsafe { $set(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> $v {
                // SAFETY: see above.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $t, v: $v) {
                // SAFETY: see above.
                unsafe { $store(p, v) }
            }
            #[inline(always)]
            unsafe fn load_first(p: *const $t, n: usize) -> $v {
                // SAFETY: see above.
                unsafe { $maskz(((1u32 << n) - 1) as $mask, p) }
            }
            #[inline(always)]
            unsafe fn store_first(p: *mut $t, v: $v, n: usize) {
                // SAFETY: see above.
                unsafe { $mask_store(p, ((1u32 << n) - 1) as $mask, v) }
            }
            #[inline(always)]
            unsafe fn add(a: $v, b: $v) -> $v {
                // SAFETY: see above.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: $v, b: $v) -> $v {
                // SAFETY: see above.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                // SAFETY: see above.
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                // SAFETY: see above.
                unsafe { $sum(v) }
            }
        }
    };
}

avx512!(
    f32,
    __m512,
    16,
    __mmask16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_mask_storeu_ps,
    _mm512_add_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_reduce_add_ps
);
avx512!(
    f64,
    __m512d,
    8,
    __mmask8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_mask_storeu_pd,
    _mm512_add_pd,
    _mm512_mul_pd,
    _mm512_fmadd_pd,
    _mm512_reduce_add_pd
);
