//! The register tile: the one inner loop under every product.
//!
//! ```text
//!   c[i][j]  (+)=  sum_p  l[p][i] * r[p][j]        i < M rows, j < V vectors of lanes, p over all depths
//! ```
//!
//! Depths come in *runs*: `len` consecutive ones from each of several starts. A dense product is one run; the rows of an image
//! window are many. For each depth `p`, `l + p * left_step` holds M elements, which are broadcast, and `r + p * right_step` V
//! vectors; all `M * V` sums stay in registers over the whole depth. Per depth: `M * V` FMAs, `V` loads and `M` broadcasts.

use crate::simd::{Simd, prefetch, prefetch_l2};

/// Steps of depth that a left strip is prefetched ahead. Its lines are three or fewer apart and used once, which hardware prefetchers
/// follow badly; this many steps take as long as a read from the last-level cache.
const AHEAD: usize = 32;

/// Bytes of the next slab that each step of depth asks for. A macro-tile of side s takes `s / mr * s / nr` calls of as many steps as a panel has
/// rows, and its `2 s / nr` panels of the next slab are then covered if this is at least `2 mr nr / s` elements: 16 bytes for 192.
pub(crate) const NEXT_STEP: usize = 16;

/// Where the operands of a register tile lie: `runs` runs of `len` depths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depths {
    /// The first depth of each run, for the left operand.
    pub(crate) left: *const usize,
    /// The same for the right one.
    pub(crate) right: *const usize,
    pub(crate) runs: usize,
    pub(crate) len: usize,
    /// Elements from one depth to the next.
    pub(crate) left_step: usize,
    pub(crate) right_step: usize,
    /// What to ask for meanwhile, into L2: the slab that comes next. Any address will do.
    pub(crate) next: *const u8,
}

impl Depths {
    /// Depths `0..len`, `step` elements apart on both sides.
    pub(crate) fn dense(len: usize, step: usize) -> Depths {
        static START: usize = 0;
        let next = (&raw const START).cast();
        Depths { left: &START, right: &START, runs: 1, len, left_step: step, right_step: step, next }
    }
}

/// What a microkernel does with its sums.
pub(crate) type TileFn<T> = unsafe fn(depths: &Depths, l: *const T, r: *const T, c: *mut T, ldc: usize, fresh: bool);

/// Computes one register tile into `c` (row-major, leading dimension `ldc`): overwrites if `fresh`, adds otherwise.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: `depths` names readable starts, at whose depths `l` is
/// readable for M elements and `r` for V vectors; `c` is writable for M rows of V vectors.
#[inline(always)]
pub(crate) unsafe fn tile<T: Copy, S: Simd<T>, const M: usize, const V: usize>(
    depths: &Depths,
    l: *const T,
    r: *const T,
    c: *mut T,
    ldc: usize,
    fresh: bool,
    zero: T,
) {
    let Depths { left, right, runs, len, left_step, right_step, mut next } = *depths;
    // SAFETY: the caller's contract; run < runs, p < len, i < M and v < V keep every access inside it.
    unsafe {
        let mut sums = [[S::splat(zero); V]; M];
        let (mut lp, mut rp, mut run, mut rest) = (l, r, 0, 0);
        for _ in 0..runs * len {
            if rest == 0 {
                (lp, rp) = (l.add(*left.add(run) * left_step), r.add(*right.add(run) * right_step));
                (run, rest) = (run + 1, len);
            }
            rest -= 1;
            let mut right = [S::splat(zero); V];
            prefetch(lp.wrapping_add(AHEAD * left_step));
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
            prefetch_l2(next);
            next = next.wrapping_add(NEXT_STEP);
            lp = lp.add(left_step);
            rp = rp.add(right_step);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let at = c.add(i * ldc + v * S::LANES);
                S::store(at, if fresh { sum } else { S::add(S::load(at), sum) });
            }
        }
    }
}
