//! AVX-512F: 32 registers of 16 `f32` or 8 `f64`. The register tile is 8 rows of 3 vectors: 24 accumulators, 3 + 8 loads for 24 FMAs.

use super::Simd;
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

macro_rules! avx512 {
    ($t:ident, $v:ident, $lanes:literal, $mask:ident, $set:ident, $load:ident, $store:ident, $maskz:ident, $mask_store:ident,
     $add:ident, $mul:ident, $fma:ident, $div:ident, $sum:ident, $transpose:ident) => {
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
            unsafe fn div(a: $v, b: $v) -> $v {
                // SAFETY: see above.
                unsafe { $div(a, b) }
            }
            #[inline(always)]
            unsafe fn even(a: $v, b: $v) -> $v {
                // SAFETY: a vector and an array of its lanes have one size and no invalid bits.
                unsafe {
                    let [a, b]: [[$t; $lanes]; 2] = core::mem::transmute::<[$v; 2], _>([a, b]);
                    core::mem::transmute::<[$t; $lanes], $v>(super::portable::even(a, b))
                }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                // SAFETY: see above.
                unsafe { $sum(v) }
            }
            #[inline(always)]
            unsafe fn transpose_square(dst: *mut $t, dst_step: usize, src: *const $t, src_step: isize) {
                // SAFETY: see above.
                unsafe {
                    let mut rows = [$set(0.0); $lanes];
                    for (i, row) in rows.iter_mut().enumerate() {
                        *row = $load(src.offset(i as isize * src_step));
                    }
                    let columns = $transpose(rows);
                    for (j, &column) in columns.iter().enumerate() {
                        $store(dst.add(j * dst_step), column);
                    }
                }
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
    _mm512_div_ps,
    _mm512_reduce_add_ps,
    transpose_f32
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
    _mm512_div_pd,
    _mm512_reduce_add_pd,
    transpose_f64
);

/// Transposes 16 rows of 16: within each 128-bit quarter by unpacking singles, then pairs; then quarters among registers.
#[inline(always)]
unsafe fn transpose_f32(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller has AVX-512F.
    unsafe {
        let mut t = r;
        for i in (0..16).step_by(4) {
            let (lo01, hi01) = (_mm512_unpacklo_ps(r[i], r[i + 1]), _mm512_unpackhi_ps(r[i], r[i + 1]));
            let (lo23, hi23) = (_mm512_unpacklo_ps(r[i + 2], r[i + 3]), _mm512_unpackhi_ps(r[i + 2], r[i + 3]));
            t[i] = _mm512_shuffle_ps::<0b01_00_01_00>(lo01, lo23);
            t[i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(lo01, lo23);
            t[i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(hi01, hi23);
            t[i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(hi01, hi23);
        }
        // Now quarter q of t[4 b + c] holds column 4 q + c of rows 4 b .. 4 b + 4.
        let mut out = t;
        for c in 0..4 {
            let (a, b, d, e) = (t[c], t[4 + c], t[8 + c], t[12 + c]);
            let (ab_even, ab_odd) =
                (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
            let (de_even, de_odd) =
                (_mm512_shuffle_f32x4::<0b10_00_10_00>(d, e), _mm512_shuffle_f32x4::<0b11_01_11_01>(d, e));
            out[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, de_even);
            out[8 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, de_even);
            out[4 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, de_odd);
            out[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, de_odd);
        }
        out
    }
}

/// Transposes 8 rows of 8: pairs within each 128-bit quarter, then quarters among registers.
#[inline(always)]
unsafe fn transpose_f64(r: [__m512d; 8]) -> [__m512d; 8] {
    // SAFETY: the caller has AVX-512F.
    unsafe {
        let mut t = r;
        for i in (0..8).step_by(2) {
            t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
        }
        // Now quarter q of t[2 b + c] holds column 2 q + c of rows 2 b, 2 b + 1.
        let mut out = t;
        for c in 0..2 {
            let (a, b, d, e) = (t[c], t[2 + c], t[4 + c], t[6 + c]);
            let (ab_even, ab_odd) =
                (_mm512_shuffle_f64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_f64x2::<0b11_01_11_01>(a, b));
            let (de_even, de_odd) =
                (_mm512_shuffle_f64x2::<0b10_00_10_00>(d, e), _mm512_shuffle_f64x2::<0b11_01_11_01>(d, e));
            out[c] = _mm512_shuffle_f64x2::<0b10_00_10_00>(ab_even, de_even);
            out[4 + c] = _mm512_shuffle_f64x2::<0b11_01_11_01>(ab_even, de_even);
            out[2 + c] = _mm512_shuffle_f64x2::<0b10_00_10_00>(ab_odd, de_odd);
            out[6 + c] = _mm512_shuffle_f64x2::<0b11_01_11_01>(ab_odd, de_odd);
        }
        out
    }
}
