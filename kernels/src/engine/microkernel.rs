//! The register tile: the one inner loop under every product.
//!
//! ```text
//!   c[i][j]  (+)=  sum_p  l[p][i] * r[p][j]        i < M rows, j < V vectors of lanes, p over all depths
//! ```
//!
//! Depths come in *runs*: `len` consecutive ones from each of several starts. A dense product is one run; the rows of an image
//! window are many. For each depth `p`, `l + p * left_step` begins M elements `row_step` apart, which are broadcast, and
//! `r + p * right_step` V vectors; all `M * V` sums stay in registers over the whole depth. Per depth: `M * V` FMAs, `V` loads and
//! `M` broadcasts. A packed left operand has its rows side by side; one whose rows are contiguous along the depth is read where it
//! lies, without a copy.

use crate::simd::{self, Simd, prefetch, prefetch_l2};

/// Steps of depth that a left strip is prefetched ahead. Its lines are three or fewer apart and used once, which hardware prefetchers
/// follow badly; this many steps take as long as a read from the last-level cache.
const AHEAD: usize = 32;

/// Bytes of the next slab that each step of depth asks for. A macro-tile of side s takes `s / mr * s / nr` calls of as many steps as a panel has
/// rows, and its `2 s / nr` panels of the next slab are then covered if this is at least `2 mr nr / s` elements: 16 bytes for 192.
pub(crate) const NEXT_STEP: usize = 16;

/// Steps of depth in one turn of the loop. Where two threads share a core a step takes as long as it has instructions (`docs/kernels.md`): a turn
/// counts and asks ahead once.
const UNROLL: usize = 4;

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
    /// Elements from one row of the left operand to the next, 1 where it is packed.
    pub(crate) row_step: isize,
    /// What to ask for meanwhile, into L2: the slab that comes next. Any address will do.
    pub(crate) next: *const u8,
    /// The same of rows that lie apart: M rows from here on, `row_step` apart.
    pub(crate) next_rows: *const u8,
}

impl Depths {
    /// Depths `0..len` of packed operands, `step` elements apart on both sides.
    pub(crate) fn dense(len: usize, step: usize) -> Depths {
        static START: usize = 0;
        let next = (&raw const START).cast();
        Depths {
            left: &START,
            right: &START,
            runs: 1,
            len,
            left_step: step,
            right_step: step,
            row_step: 1,
            next,
            next_rows: next,
        }
    }
}

/// What a microkernel does with its sums.
pub(crate) type TileFn<T> = unsafe fn(depths: &Depths, l: *const T, r: *const T, c: *mut T, ldc: usize, fresh: bool);

/// How the operands of a tile lie; what is known ahead needs no registers in the loop.
pub(crate) mod kind {
    /// Both packed, panels of nr: one run, steps of nr.
    pub(crate) const PACKED: u8 = 0;
    /// The right one packed, rows of the left one contiguous along the depth, `row_step` apart: one run.
    pub(crate) const ROWS: u8 = 1;
    /// Any runs and steps, M elements of the left operand side by side.
    pub(crate) const RUNS: u8 = 2;
}
use kind::{PACKED, ROWS, RUNS};

/// Computes one register tile into `c` (row-major, leading dimension `ldc`): overwrites if `fresh`, adds otherwise.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: operands lie as `KIND` says; `depths` names readable starts, at whose
/// depths `l` is readable for M elements and `r` for V vectors; `c` is writable for M rows of V vectors.
#[inline(always)]
pub(crate) unsafe fn tile<T: Copy, S: Simd<T>, const M: usize, const V: usize, const KIND: u8>(
    depths: &Depths,
    l: *const T,
    r: *const T,
    c: *mut T,
    ldc: usize,
    fresh: bool,
    zero: T,
) {
    const { assert!(M <= 8 && UNROLL == 4) };
    let Depths { left, right, runs, len, row_step, mut next, .. } = *depths;
    let nr = S::LANES * S::VECTORS;
    let (left_step, right_step) = match KIND {
        PACKED => (nr, nr),
        ROWS => (1, nr),
        _ => (depths.left_step, depths.right_step),
    };
    // SAFETY: the caller's contract; run < runs, p < len, i < M and v < V keep every access inside it.
    unsafe {
        let mut sums = [[S::splat(zero); V]; M];
        for run in 0..if KIND == RUNS { runs } else { 1 } {
            let (mut lp, mut rp) = (l, r);
            if KIND == RUNS {
                (lp, rp) = (lp.add(*left.add(run) * left_step), rp.add(*right.add(run) * right_step));
            }
            let mut rest = len;
            while rest >= UNROLL {
                if KIND == ROWS {
                    let turn = (len - rest) / UNROLL;
                    let ahead = depths.next_rows.cast::<T>().wrapping_offset((turn % M) as isize * row_step);
                    for line in 0..lines_ahead::<T, M>() {
                        prefetch_l2(ahead.wrapping_add((turn / M * lines_ahead::<T, M>() + line) * simd::line::<T>()));
                    }
                }
                let lefts = Lefts::<T, KIND>::new(lp, row_step);
                macro_rules! steps {
                    ($($u:literal)*) => {$(
                        if KIND == RUNS {
                            step::<T, S, M, V, KIND>(&mut sums, Lefts::new(lp, 1), 0, rp, AHEAD * left_step);
                            (lp, rp) = hidden(lp.add(left_step), rp.add(right_step));
                        } else {
                            step::<T, S, M, V, KIND>(&mut sums, lefts, $u * left_step, rp.add($u * right_step), AHEAD * left_step);
                        }
                    )*};
                }
                // Written out: compilers leave a loop over this much as it is, or a closure as a call.
                steps!(0 1 2 3);
                if KIND != RUNS {
                    (lp, rp) = (lp.add(UNROLL * left_step), rp.add(UNROLL * right_step));
                }
                prefetch_l2(next);
                next = next.wrapping_add(UNROLL * NEXT_STEP);
                rest -= UNROLL;
            }
            while rest > 0 {
                step::<T, S, M, V, KIND>(&mut sums, Lefts::new(lp, row_step), 0, rp, 0);
                (lp, rp) = (lp.add(left_step), rp.add(right_step));
                next = next.wrapping_add(NEXT_STEP);
                rest -= 1;
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let at = c.add(i * ldc + v * S::LANES);
                S::store(at, if fresh { sum } else { S::add(S::load(at), sum) });
            }
        }
    }
}

/// Where the elements of a left operand's rows lie, of which the first and the fifth have an address of their own: what an instruction can add to it
/// reaches the three after it.
#[derive(Clone, Copy)]
struct Lefts<T, const KIND: u8> {
    first: *const T,
    fifth: *const T,
    /// Bytes to the next row, and to the third.
    one: isize,
    three: isize,
}

impl<T, const KIND: u8> Lefts<T, KIND> {
    #[inline(always)]
    fn new(first: *const T, row_step: isize) -> Self {
        let one = row_step * size_of::<T>() as isize;
        let lefts = Lefts { first, fifth: first.wrapping_byte_offset(4 * one), one, three: 3 * one };
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let lefts = if KIND == ROWS { lefts.hidden() } else { lefts };
        lefts
    }

    /// The same, and the compiler does not know how they are related: it would else add up every address.
    // Nothing is read.
    #[allow(clippy::pointers_in_nomem_asm_block)]
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn hidden(self) -> Self {
        let Lefts { mut first, mut fifth, mut one, mut three } = self;
        // SAFETY: an empty instruction.
        unsafe {
            core::arch::asm!("/* {} {} {} {} */", inout(reg) first, inout(reg) fifth, inout(reg) one, inout(reg) three, options(nomem, nostack, preserves_flags));
        }
        Lefts { first, fifth, one, three }
    }

    /// Row `i < 8`, `depth` elements on.
    #[inline(always)]
    fn at(&self, i: usize, depth: usize) -> *const T {
        if KIND != ROWS {
            return self.first.wrapping_add(i + depth);
        }
        let from = if i < 4 { self.first } else { self.fifth };
        from.wrapping_byte_offset([0, self.one, 2 * self.one, self.three][i % 4]).wrapping_add(depth)
    }
}

/// The same addresses, and the compiler does not know: it would else keep a register for every multiple of the steps between them.
// Nothing is read.
#[allow(clippy::pointers_in_nomem_asm_block)]
#[inline(always)]
fn hidden<T>(l: *const T, r: *const T) -> (*const T, *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let (mut l, mut r) = (l, r);
        // SAFETY: an empty instruction.
        unsafe {
            core::arch::asm!("/* {} {} */", inout(reg) l, inout(reg) r, options(nomem, nostack, preserves_flags));
        }
        (l, r)
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    (l, r)
}

/// One depth of a tile, `depth` elements after where the left operand's rows begin, and its line `ahead` elements further asked for.
///
/// # Safety
/// As [`tile`], of this depth.
#[inline(always)]
unsafe fn step<T: Copy, S: Simd<T>, const M: usize, const V: usize, const KIND: u8>(
    sums: &mut [[S::V; V]; M],
    l: Lefts<T, KIND>,
    depth: usize,
    r: *const T,
    ahead: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        if KIND != ROWS {
            prefetch(l.at(0, depth + ahead));
        }
        let right: [S::V; V] = core::array::from_fn(|v| S::load(r.add(v * S::LANES)));
        for (i, row) in sums.iter_mut().enumerate() {
            let left = S::splat(*l.at(i, depth));
            for (sum, &vector) in row.iter_mut().zip(&right) {
                // Registers are all in use: broadcasts of later rows and depths, moved up, would spill sums in every step.
                *sum = S::pin(S::fma(left, vector, *sum));
            }
        }
    }
}

/// Lines of rows that lie apart, asked for in UNROLL steps: those of as many depths, of M rows.
const fn lines_ahead<T, const M: usize>() -> usize {
    let lines = UNROLL * M / simd::line::<T>();
    if lines > 0 { lines } else { 1 }
}
