//! Squares of entries through registers: rows that lie anywhere become vectors, and back.
//!
//! A vector is PARTS parts of 16 bytes, SIDE elements each. Parts are loaded, each from its own address, to where they belong; what is left to do are
//! transposes of SIDE x SIDE inside each part. A square of 16 x 16 `f32` so takes 64 loads of a quarter, of which three in four are inserted by
//! any vector port, and 32 shuffles; loaded by rows it would take 64 shuffles, all on one port.
//!
//! ```text
//! rows     a0 a1 ..   b0 b1 ..   c0 c1 ..            SIDE = 2, PARTS = 2
//! gather   [a0 a1 | c0 c1]   [b0 b1 | d0 d1]
//! turn     [a0 b0 | c0 d0]   [a1 b1 | c1 d1]
//! ```

use super::{QUAD, Quads, SIDES, Simd};
use num_traits::Float;

/// The most parts of a vector: lanes, where a part is one element.
const PARTS: usize = 16;

/// QUAD elements from `offset` on of LANES rows, each its own pointer, times `scale`: element `j` of all rows becomes the vector at `dst + j step`,
/// zero for `width <= j`.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: LANES pointers and `width` elements of each row are readable, the
/// vectors are writable.
#[inline(always)]
pub(crate) unsafe fn interleave<T: Float, S: Simd<T>>(
    dst: *mut T,
    step: usize,
    rows: *const *const T,
    offset: isize,
    width: usize,
    scale: S::V,
) {
    // SAFETY: the caller's contract.
    unsafe {
        for first in (0..QUAD).step_by(S::SIDE) {
            let mut v = [S::splat(T::zero()); SIDES];
            for (b, vector) in v.iter_mut().enumerate().take(S::SIDE) {
                let mut from = [core::ptr::null(); PARTS];
                for (p, part) in from.iter_mut().enumerate().take(S::LANES / S::SIDE) {
                    *part = (*rows.add(p * S::SIDE + b)).wrapping_offset(offset).wrapping_add(first);
                }
                *vector = match width.saturating_sub(first) {
                    0 => *vector,
                    width if width < S::SIDE => S::gather_first(&from, width),
                    _ => S::gather(&from),
                };
            }
            let v = S::turn(v);
            for (c, &vector) in v.iter().enumerate().take(S::SIDE) {
                S::store(dst.add((first + c) * step), S::mul(vector, scale));
            }
        }
    }
}

/// The inverse, of the SIDE rows of one part: in vector `b`, entry `part SIDE + b` of each vector of `quads`.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: all vectors of the quads are readable at `src`.
#[inline(always)]
pub(crate) unsafe fn deinterleave<T: Float, S: Simd<T>>(src: *const T, quads: &Quads, part: usize) -> [S::V; SIDES] {
    // SAFETY: the caller's contract.
    unsafe {
        let src = src.wrapping_add(part * S::SIDE);
        let mut v = [S::splat(T::zero()); SIDES];
        for (c, vector) in v.iter_mut().enumerate().take(S::SIDE) {
            let mut from = [core::ptr::null(); PARTS];
            for (p, at) in from.iter_mut().enumerate().take(S::LANES / S::SIDE) {
                let j = p * S::SIDE + c;
                *at = src.wrapping_byte_add(quads.at[j / QUAD]).wrapping_byte_add(j % QUAD * quads.step[j / QUAD]);
            }
            *vector = S::gather(&from);
        }
        S::turn(v)
    }
}

/// Transposes a square of LANES: `dst[j * dst_step + i] <- src[i * src_step + j]`, whole columns, stored in the order of `j`: where they overlap, the
/// later one stays.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: the square is readable and writable.
#[inline(always)]
pub(crate) unsafe fn transpose<T: Float, S: Simd<T>>(dst: *mut T, dst_step: usize, src: *const T, src_step: isize) {
    // SAFETY: the caller's contract.
    unsafe {
        for first in (0..S::LANES).step_by(S::SIDE) {
            let mut v = [S::splat(T::zero()); SIDES];
            for (b, vector) in v.iter_mut().enumerate().take(S::SIDE) {
                let mut from = [core::ptr::null(); PARTS];
                for (p, part) in from.iter_mut().enumerate().take(S::LANES / S::SIDE) {
                    *part = src.wrapping_offset((p * S::SIDE + b) as isize * src_step).wrapping_add(first);
                }
                *vector = S::gather(&from);
            }
            let v = S::turn(v);
            for (c, &vector) in v.iter().enumerate().take(S::SIDE) {
                S::store(dst.add((first + c) * dst_step), vector);
            }
        }
    }
}
