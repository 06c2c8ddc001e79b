//! The register tile: the one inner loop under every product.
//!
//! ```text
//!   c[i][j]  (+)=  sum_p  l[p][i] * r[p][j]        i < M rows, j < V vectors of lanes, p < depth
//! ```
//!
//! `l` and `r` point into packed panels: for each `p`, `NR = LANES * VECTORS` consecutive elements. Rows are broadcast
//! from `l`, vectors are read from `r`, and all `M * V` sums stay in registers over the whole depth. Per step of depth:
//! `M * V` FMAs, `V` loads and `M` broadcasts.

use crate::simd::{Simd, prefetch};

/// Steps of depth that a left strip is prefetched ahead. Its lines are three or fewer apart and used once, which hardware prefetchers
/// follow badly; this many steps take as long as a read from the last-level cache.
const AHEAD: usize = 32;

/// What a microkernel does with its sums.
pub(crate) type TileFn<T> = unsafe fn(depth: usize, l: *const T, r: *const T, c: *mut T, ldc: usize, fresh: bool);

/// Computes one register tile into `c` (row-major, leading dimension `ldc`): overwrites if `fresh`, adds otherwise.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: `l` and `r` are readable for `depth` panel
/// rows, `c` writable for M rows of V vectors.
#[inline(always)]
pub(crate) unsafe fn tile<T: Copy, S: Simd<T>, const M: usize, const V: usize>(
    depth: usize,
    l: *const T,
    r: *const T,
    c: *mut T,
    ldc: usize,
    fresh: bool,
    zero: T,
) {
    let step = S::LANES * S::VECTORS;
    // SAFETY: the caller's contract; p < depth, i < M and v < V keep every access inside it.
    unsafe {
        let mut sums = [[S::splat(zero); V]; M];
        let (mut lp, mut rp) = (l, r);
        for _ in 0..depth {
            let mut right = [S::splat(zero); V];
            prefetch(lp.wrapping_add(AHEAD * step));
            for (v, vector) in right.iter_mut().enumerate() {
                *vector = S::load(rp.add(v * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let left = S::splat(*lp.add(i));
                for (sum, &vector) in row.iter_mut().zip(&right) {
                    *sum = S::fma(left, vector, *sum);
                }
                // An empty instruction that loads cannot be moved across: the AVX2 tile needs all 16 registers, and the
                // next row's broadcast, hoisted above this row's FMAs, would spill an accumulator in every step.
                #[cfg(not(miri))]
                core::arch::asm!("", options(nostack, preserves_flags));
            }
            lp = lp.add(step);
            rp = rp.add(step);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let at = c.add(i * ldc + v * S::LANES);
                S::store(at, if fresh { sum } else { S::add(S::load(at), sum) });
            }
        }
    }
}
