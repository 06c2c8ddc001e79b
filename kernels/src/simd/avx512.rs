//! AVX-512F: 32 registers of 16 `f32` or 8 `f64`. The register tile is 8 rows of 3 vectors: 24 accumulators, 3 + 8 loads for 24 FMAs.

use super::avx2::{part_f32, part_f64, part_first_f32, part_first_f64};
use super::{SIDES, Simd};
use core::arch::x86_64::*;
use core::convert::identity;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

macro_rules! avx512 {
    ($t:ident, $v:ident, $lanes:literal, $mask:ident, $set:ident, $load:ident, $store:ident, $maskz:ident, $mask_store:ident,
     $add:ident, $mul:ident, $fma:ident, $fnma:ident, $div:ident, $sqrt:ident, $compare:ident, $mask_compare:ident, $sum:ident,
     $sub:ident, $abs:ident, $blend:ident, $side:literal, $part:ident, $part_first:ident, $cast:ident, $turn:ident, $estimate:ident, $steps:literal) => {
        // SAFETY of every body: the trait's contract gives the instruction set; pointers are the caller's to vouch for.
        impl Simd<$t> for Avx512 {
            type V = $v;
            const LANES: usize = $lanes;
            const VECTORS: usize = 3;
            const ROWS: usize = 8;
            const SIDE: usize = $side;
            const FUSED: bool = true;

            #[inline(always)]
            unsafe fn splat(x: $t) -> $v {
                // SAFETY: see above.
                unsafe { $set(x) }
            }
            #[cfg(not(miri))]
            #[inline(always)]
            unsafe fn pin(v: $v) -> $v {
                #[inline]
                #[target_feature(enable = "avx512f")]
                fn pin(mut v: $v) -> $v {
                    // SAFETY: an empty instruction.
                    unsafe { core::arch::asm!("/* {} */", inout(zmm_reg) v, options(nostack, preserves_flags)) };
                    v
                }
                // SAFETY: see above.
                unsafe { pin(v) }
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
            unsafe fn fnma(a: $v, b: $v, c: $v) -> $v {
                // SAFETY: see above.
                unsafe { $fnma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn sub(a: $v, b: $v) -> $v {
                // SAFETY: see above.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            unsafe fn abs(v: $v) -> $v {
                // SAFETY: see above.
                unsafe { $abs(v) }
            }
            #[inline(always)]
            unsafe fn select_le(a: $v, b: $v, x: $v, y: $v) -> $v {
                // SAFETY: see above.
                unsafe { $blend($compare::<_CMP_LE_OQ>(a, b), y, x) }
            }
            #[inline(always)]
            unsafe fn div(a: $v, b: $v) -> $v {
                // SAFETY: see above.
                unsafe { $div(a, b) }
            }
            #[inline(always)]
            unsafe fn sqrt(v: $v) -> $v {
                // SAFETY: see above.
                unsafe { $sqrt(v) }
            }
            #[inline(always)]
            unsafe fn positive(v: $v) -> u32 {
                // SAFETY: see above.
                unsafe {
                    let below = $compare::<_CMP_LT_OQ>(v, $set($t::INFINITY));
                    u32::from($mask_compare::<_CMP_GT_OQ>(below, v, $set(0.0)))
                }
            }
            #[inline(always)]
            unsafe fn store_range(p: *mut $t, v: $v, wanted: core::ops::Range<usize>) {
                // SAFETY: see above.
                unsafe { $mask_store(p, ((u32::MAX >> (32 - wanted.end)) & (u32::MAX << wanted.start)) as $mask, v) }
            }
            #[inline(always)]
            unsafe fn gather(from: &[*const $t; 16]) -> $v {
                // SAFETY: see above.
                unsafe { $cast(join([$part(from[0]), $part(from[1]), $part(from[2]), $part(from[3])])) }
            }
            #[inline(always)]
            unsafe fn gather_first(from: &[*const $t; 16], n: usize) -> $v {
                // SAFETY: see above.
                unsafe {
                    let [a, b] = [$part_first(from[0], n), $part_first(from[1], n)];
                    $cast(join([a, b, $part_first(from[2], n), $part_first(from[3], n)]))
                }
            }
            #[inline(always)]
            unsafe fn turn(v: [$v; SIDES]) -> [$v; SIDES] {
                // SAFETY: see above.
                unsafe { $turn(v) }
            }
            #[inline(always)]
            unsafe fn reciprocal_root(v: $v) -> $v {
                // SAFETY: see above.
                unsafe {
                    // Newton's method from an estimate within 2^-14. The last step rounds v r to begin with and its result to end with; half the first
                    // rounding arrives. For f32 one step leaves 1.5 2^-28, less than a tenth of a unit, for f64 two leave 0.43: below two units in all.
                    let mut r = $estimate(v);
                    for _ in 0..$steps {
                        let rest = $fnma($mul(v, r), r, $set(1.0));
                        r = $fma($mul(r, $set(0.5)), rest, r);
                    }
                    r
                }
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
    _mm512_fnmadd_ps,
    _mm512_div_ps,
    _mm512_sqrt_ps,
    _mm512_cmp_ps_mask,
    _mm512_mask_cmp_ps_mask,
    _mm512_reduce_add_ps,
    _mm512_sub_ps,
    _mm512_abs_ps,
    _mm512_mask_blend_ps,
    4,
    part_f32,
    part_first_f32,
    identity,
    turn_f32,
    _mm512_rsqrt14_ps,
    1
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
    _mm512_fnmadd_pd,
    _mm512_div_pd,
    _mm512_sqrt_pd,
    _mm512_cmp_pd_mask,
    _mm512_mask_cmp_pd_mask,
    _mm512_reduce_add_pd,
    _mm512_sub_pd,
    _mm512_abs_pd,
    _mm512_mask_blend_pd,
    2,
    part_f64,
    part_first_f64,
    _mm512_castps_pd,
    turn_f64,
    _mm512_rsqrt14_pd,
    2
);

/// Four parts in one register. Where a part was loaded, it is inserted from memory, on any vector port.
#[inline(always)]
unsafe fn join(parts: [__m128; 4]) -> __m512 {
    // SAFETY: the caller has AVX-512F.
    unsafe {
        let v = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(parts[0]), parts[1]);
        _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(v, parts[2]), parts[3])
    }
}

/// By unpacking singles, then pairs.
#[inline(always)]
unsafe fn turn_f32(v: [__m512; SIDES]) -> [__m512; SIDES] {
    // SAFETY: the caller has AVX-512F.
    unsafe {
        let (lo01, hi01) = (_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        let (lo23, hi23) = (_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        [
            _mm512_shuffle_ps::<0b01_00_01_00>(lo01, lo23),
            _mm512_shuffle_ps::<0b11_10_11_10>(lo01, lo23),
            _mm512_shuffle_ps::<0b01_00_01_00>(hi01, hi23),
            _mm512_shuffle_ps::<0b11_10_11_10>(hi01, hi23),
        ]
    }
}

#[inline(always)]
unsafe fn turn_f64(v: [__m512d; SIDES]) -> [__m512d; SIDES] {
    // SAFETY: the caller has AVX-512F.
    unsafe { [_mm512_unpacklo_pd(v[0], v[1]), _mm512_unpackhi_pd(v[0], v[1]), v[2], v[3]] }
}
