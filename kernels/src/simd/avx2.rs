//! AVX2 with FMA: 16 registers of 8 `f32` or 4 `f64`. The register tile is 4 rows of 3 vectors: 12 accumulators, 3 + 4 loads for 12 FMAs.

use super::{SIDES, Simd};
use core::arch::x86_64::*;
use core::convert::identity;

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// A window that starts `n` elements before the end of the -1s is a mask of the first `n` lanes.
static MASK_32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static MASK_64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

macro_rules! avx2 {
    ($t:ident, $v:ident, $lanes:literal, $mask:ident, $set:ident, $load:ident, $store:ident, $mask_load:ident, $mask_store:ident,
     $add:ident, $mul:ident, $fma:ident, $fnma:ident, $div:ident, $sqrt:ident, $compare:ident, $and:ident, $signs:ident, $sub:ident,
     $andnot:ident, $blend:ident, $side:literal, $part:ident, $part_first:ident, $cast:ident, $turn:ident) => {
        // SAFETY of every body: the trait's contract gives the instruction set; pointers are the caller's to vouch for.
        impl Simd<$t> for Avx2 {
            type V = $v;
            const LANES: usize = $lanes;
            const VECTORS: usize = 3;
            const ROWS: usize = 4;
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
                #[target_feature(enable = "avx2")]
                fn pin(mut v: $v) -> $v {
                    // SAFETY: an empty instruction.
                    unsafe { core::arch::asm!("/* {} */", inout(ymm_reg) v, options(nostack, preserves_flags)) };
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
                // SAFETY: see above; the mask's window lies inside its table because n <= LANES.
                unsafe {
                    let mask = _mm256_loadu_si256($mask.as_ptr().add($lanes - n).cast());
                    $mask_load(p, mask)
                }
            }
            #[inline(always)]
            unsafe fn store_first(p: *mut $t, v: $v, n: usize) {
                // SAFETY: as in load_first.
                unsafe {
                    let mask = _mm256_loadu_si256($mask.as_ptr().add($lanes - n).cast());
                    $mask_store(p, mask, v)
                }
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
                unsafe { $andnot($set(-0.0), v) }
            }
            #[inline(always)]
            unsafe fn select_le(a: $v, b: $v, x: $v, y: $v) -> $v {
                // SAFETY: see above.
                unsafe { $blend(y, x, $compare::<_CMP_LE_OQ>(a, b)) }
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
                    let above = $compare::<_CMP_GT_OQ>(v, $set(0.0));
                    let below = $compare::<_CMP_LT_OQ>(v, $set($t::INFINITY));
                    $signs($and(above, below)) as u32
                }
            }
            #[inline(always)]
            unsafe fn store_range(p: *mut $t, v: $v, wanted: core::ops::Range<usize>) {
                // SAFETY: as in load_first, twice.
                unsafe {
                    let ended = _mm256_loadu_si256($mask.as_ptr().add($lanes - wanted.end).cast());
                    let before = _mm256_loadu_si256($mask.as_ptr().add($lanes - wanted.start).cast());
                    $mask_store(p, _mm256_andnot_si256(before, ended), v)
                }
            }
            #[inline(always)]
            unsafe fn gather(from: &[*const $t; 16]) -> $v {
                // SAFETY: see above.
                unsafe { $cast(join([$part(from[0]), $part(from[1])])) }
            }
            #[inline(always)]
            unsafe fn gather_first(from: &[*const $t; 16], n: usize) -> $v {
                // SAFETY: see above.
                unsafe { $cast(join([$part_first(from[0], n), $part_first(from[1], n)])) }
            }
            #[inline(always)]
            unsafe fn turn(v: [$v; SIDES]) -> [$v; SIDES] {
                // SAFETY: see above.
                unsafe { $turn(v) }
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
                // SAFETY: a vector and an array of its lanes have one size and no invalid bits.
                let lanes: [$t; $lanes] = unsafe { core::mem::transmute(v) };
                super::portable::pairwise_sum(lanes)
            }
        }
    };
}

avx2!(
    f32,
    __m256,
    8,
    MASK_32,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_maskload_ps,
    _mm256_maskstore_ps,
    _mm256_add_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_div_ps,
    _mm256_sqrt_ps,
    _mm256_cmp_ps,
    _mm256_and_ps,
    _mm256_movemask_ps,
    _mm256_sub_ps,
    _mm256_andnot_ps,
    _mm256_blendv_ps,
    4,
    part_f32,
    part_first_f32,
    identity,
    turn_f32
);
avx2!(
    f64,
    __m256d,
    4,
    MASK_64,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_maskload_pd,
    _mm256_maskstore_pd,
    _mm256_add_pd,
    _mm256_mul_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_div_pd,
    _mm256_sqrt_pd,
    _mm256_cmp_pd,
    _mm256_and_pd,
    _mm256_movemask_pd,
    _mm256_sub_pd,
    _mm256_andnot_pd,
    _mm256_blendv_pd,
    2,
    part_f64,
    part_first_f64,
    _mm256_castps_pd,
    turn_f64
);

/// 16 bytes.
#[inline(always)]
pub(super) unsafe fn part_f32(p: *const f32) -> __m128 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { _mm_loadu_ps(p) }
}

#[inline(always)]
pub(super) unsafe fn part_f64(p: *const f64) -> __m128 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { _mm_castpd_ps(_mm_loadu_pd(p)) }
}

/// The first `n < 4` elements.
#[inline(always)]
pub(super) unsafe fn part_first_f32(p: *const f32, n: usize) -> __m128 {
    // SAFETY: the caller has AVX and vouches for the elements; the mask's window lies inside its table.
    unsafe { _mm_maskload_ps(p, _mm_loadu_si128(MASK_32.as_ptr().add(8 - n).cast())) }
}

/// The first element.
#[inline(always)]
pub(super) unsafe fn part_first_f64(p: *const f64, _: usize) -> __m128 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { _mm_castpd_ps(_mm_load_sd(p)) }
}

/// Two parts in one register. Where a part was loaded, it is inserted from memory, on any vector port.
#[inline(always)]
unsafe fn join(parts: [__m128; 2]) -> __m256 {
    // SAFETY: the caller has AVX.
    unsafe { _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(parts[0]), parts[1]) }
}

/// By unpacking singles, then pairs.
#[inline(always)]
unsafe fn turn_f32(v: [__m256; SIDES]) -> [__m256; SIDES] {
    // SAFETY: the caller has AVX.
    unsafe {
        let (lo01, hi01) = (_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
        let (lo23, hi23) = (_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(lo01, lo23),
            _mm256_shuffle_ps::<0b11_10_11_10>(lo01, lo23),
            _mm256_shuffle_ps::<0b01_00_01_00>(hi01, hi23),
            _mm256_shuffle_ps::<0b11_10_11_10>(hi01, hi23),
        ]
    }
}

#[inline(always)]
unsafe fn turn_f64(v: [__m256d; SIDES]) -> [__m256d; SIDES] {
    // SAFETY: the caller has AVX.
    unsafe { [_mm256_unpacklo_pd(v[0], v[1]), _mm256_unpackhi_pd(v[0], v[1]), v[2], v[3]] }
}
