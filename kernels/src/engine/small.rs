//! Products of a few rows, columns and depths, on the calling thread: operands are read where they lie, nothing is planned or packed.
//!
//! ```text
//! for each panel of columns                                  at most VECTORS vectors, the last one masked
//!     for each step of rows                                  register tile, as the engine's
//!         c[rows][cols] <- beta c + alpha sum_p l[rows][p] r[p][cols]
//! ```
//!
//! A left operand may have any strides, for its entries are broadcast one at a time. Rows of the right operand and of the output must be
//! contiguous: what is not, or is of another type, is copied first. Tiles of up to 8 rows of whole vectors, whose left rows are contiguous, are *even*: each row
//! has an address of its own, and an FMA broadcasts from there.

use super::epilogue::{Blend, blend_line};
use super::kernels::Kernels;
use super::plan::{ALIGN, aligned};
use crate::element::{Element, Input};
use crate::isa::Isa;
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};
use core::mem::MaybeUninit;
use dyn_stack::{MemStack, StackReq};
use num_traits::Float;

/// The largest extent of a small product: its operands stay in L1, and packing them would cost about as much as multiplying.
const SMALL: usize = 48;

/// Whether a product of this shape is a small one.
#[inline]
pub(crate) fn suits(m: usize, n: usize, k: usize) -> bool {
    m <= SMALL && n <= SMALL && k <= SMALL
}

/// Scratch of [`product`]: room for a copy of each operand and of the output.
#[inline]
pub(crate) fn scratch<T>(m: usize, n: usize, k: usize) -> StackReq {
    StackReq::new_aligned::<T>(m * k + k * n + m * n, ALIGN)
}

/// A small product whose right operand and output have contiguous rows.
#[derive(Clone, Copy)]
pub(crate) struct Job<T> {
    m: usize,
    n: usize,
    k: usize,
    left: *const T,
    row_step: isize,
    depth_step: isize,
    right: *const T,
    right_step: isize,
    out: *mut T,
    out_step: isize,
    blend: Blend<T>,
}

/// `out <- beta out + alpha lhs rhs` of a shape that [`suits`], if the operands and the output can be used where they lie; whether they can.
#[inline(always)]
pub(crate) fn in_place<L: Input, R: Input<Acc = L::Acc>>(
    mut out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    isa: Isa,
) -> bool {
    let ([m, k], n) = (lhs.shape(), rhs.cols());
    debug_assert!(suits(m, n, k) && out.shape() == [m, n] && rhs.rows() == k, "small product: shapes disagree");
    let ([row_step, depth_step], [right_step, right_unit], [out_step, out_unit]) =
        (lhs.strides(), rhs.strides(), out.strides());
    let (Some(left), Some(right), 1, 1) = (lhs.cast::<L::Acc>(), rhs.cast::<L::Acc>(), out_unit, right_unit) else {
        return false;
    };
    let (left, right, out) = (left.as_ptr(), right.as_ptr(), out.as_mut_ptr());
    let job = Job { m, n, k, left, row_step, depth_step, right, right_step, out, out_step, blend };
    // SAFETY: the kernels belong to an ISA this CPU has; the views hold these shapes, rows contiguous where they must be.
    unsafe { compute(&job, L::Acc::kernels(isa)) };
    true
}

/// `out <- beta out + alpha lhs rhs` of a shape that [`suits`], any strides.
pub(crate) fn product<L: Input, R: Input<Acc = L::Acc>>(
    mut out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    isa: Isa,
    stack: &mut MemStack,
) {
    if !in_place(out.rb_mut(), blend, lhs, rhs, isa) {
        copied(out, blend, lhs, rhs, L::Acc::kernels(isa), stack);
    }
}

/// The same by copies of what is not as it must be.
#[inline(never)]
fn copied<L: Input, R: Input<Acc = L::Acc>>(
    mut out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    kernels: &Kernels<L::Acc>,
    stack: &mut MemStack,
) {
    let ([m, k], n, [out_step, out_unit]) = (lhs.shape(), rhs.cols(), out.strides());
    if out_step == 1 && out_unit != 1 {
        // A column-major output is computed as its transpose.
        return copied(out.transpose(), blend, rhs.transpose(), lhs.transpose(), kernels, stack);
    }
    let (memory, _) = aligned::<L::Acc>(stack, m * k + k * n + m * n);
    let (left_memory, memory) = memory.split_at_mut(m * k);
    let (right_memory, out_memory) = memory.split_at_mut(k * n);
    let (left, [row_step, depth_step]) = match lhs.cast::<L::Acc>() {
        Some(left) => (left.as_ptr(), left.strides()),
        None => (widened(lhs, left_memory), [k as isize, 1]),
    };
    let (right, right_step) = match rhs.cast::<L::Acc>() {
        Some(right) if right.strides()[1] == 1 => (right.as_ptr(), right.strides()[0]),
        Some(right) if right.strides()[0] == 1 => {
            let to = right_memory.as_mut_ptr().cast();
            // SAFETY: the kernels belong to an ISA this CPU has; n contiguous columns of k become k rows of n, which the memory holds.
            unsafe { (kernels.transpose)(to, n, right.as_ptr(), right.strides()[1], n, k) };
            (to.cast_const(), n as isize)
        }
        _ => (widened(rhs, right_memory), n as isize),
    };
    let job = Job { m, n, k, left, row_step, depth_step, right, right_step, out: out.as_mut_ptr(), out_step, blend };
    if out_unit == 1 {
        // SAFETY: the kernels belong to an ISA this CPU has; operands and output hold these shapes, rows contiguous where they must be.
        return unsafe { compute(&job, kernels) };
    }
    let tile: *mut L::Acc = out_memory.as_mut_ptr().cast();
    let job = Job { out: tile, out_step: n as isize, blend: Blend::set(num_traits::One::one()), ..job };
    // SAFETY: as above, into memory for m rows of n, all of which it writes.
    let tile = unsafe {
        compute(&job, kernels);
        core::slice::from_raw_parts(tile, m * n)
    };
    for (i, row) in tile.chunks_exact(n.max(1)).enumerate() {
        let to = out.as_mut_ptr().wrapping_offset(i as isize * out_step);
        // SAFETY: row i of the output.
        unsafe { blend_line(to, out_unit, row, blend, kernels) };
    }
}

/// A copy by rows, in the type that is accumulated.
fn widened<I: Input>(from: MatRef<'_, I>, to: &mut [MaybeUninit<I::Acc>]) -> *const I::Acc {
    for i in 0..from.rows() {
        for j in 0..from.cols() {
            to[i * from.cols() + j].write(from.at([i, j]).widen());
        }
    }
    to.as_ptr().cast()
}

/// Computes a job of at least a row and a column, at most a panel of these: see [`tiles`].
pub(crate) type SmallFn<T> = unsafe fn(job: &Job<T>);

/// Computes a job, by panels of columns.
///
/// # Safety
/// The kernels belong to an ISA this CPU has; the operands are readable and the output is writable at the job's shapes and steps.
#[inline(always)]
unsafe fn compute<T: Copy>(job: &Job<T>, kernels: &Kernels<T>) {
    if job.m == 0 || job.n == 0 {
        return;
    }
    // SAFETY: the caller's contract; the job has rows and columns, no more than a panel.
    unsafe {
        match job.n <= kernels.nr {
            true => kernels.small_tiles(job.m, job.n)(job),
            false => panels(job, kernels),
        }
    }
}

/// # Safety
/// As [`compute`].
#[inline(never)]
unsafe fn panels<T: Copy>(job: &Job<T>, kernels: &Kernels<T>) {
    // Panels of one width: a narrow last one would have few sums to hide the latency of an addition behind.
    let width = job.n.div_ceil(job.n.div_ceil(kernels.nr)).next_multiple_of(kernels.lanes);
    for first in (0..job.n).step_by(width) {
        let n = width.min(job.n - first);
        let panel = Job { n, right: job.right.wrapping_add(first), out: job.out.wrapping_add(first), ..*job };
        // SAFETY: the caller's contract; a panel of the job's columns.
        unsafe { kernels.small_tiles(panel.m, n)(&panel) };
    }
}

/// Rows by groups of M, of V vectors of columns, the last of which may be masked; what is left goes to the tiles of fewer rows.
/// Only MOST, the largest M, has more than one group.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: as [`compute`], at least M rows, but fewer than 2 M unless M is MOST; `n` is
/// more than V - 1 vectors and at most V.
#[inline(always)]
pub(crate) unsafe fn tiles<T: Float, S: Simd<T>, const M: usize, const MOST: usize, const V: usize>(
    job: &Job<T>,
    kernels: &Kernels<T>,
) {
    let even = job.n == V * S::LANES && job.depth_step == 1;
    let (mut left, mut out, mut rows) = (job.left, job.out, job.m);
    loop {
        // SAFETY: the caller's contract.
        unsafe {
            match even {
                true => tile::<T, S, M, V, true>(job, left, out),
                false => tile::<T, S, M, V, false>(job, left, out),
            }
        }
        left = left.wrapping_offset(M as isize * job.row_step);
        out = out.wrapping_offset(M as isize * job.out_step);
        rows -= M;
        if M < MOST || rows < M {
            break;
        }
    }
    if M > 1 && rows > 0 {
        let job = Job { m: rows, left, out, ..*job };
        // SAFETY: the caller's contract; fewer rows than M are left.
        unsafe { kernels.small_tiles(rows, job.n)(&job) }
    }
}

/// Hides where an address comes from: it is counted up in a register of its own, not formed anew from a common index, which an FMA would wait for a slot for.
#[inline(always)]
fn opaque<T>(mut address: *const T) -> *const T {
    #[cfg(not(miri))]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) address, options(pure, readonly, nostack, preserves_flags));
    }
    address
}

/// Depths between two steps of the addresses, where each row has its own.
const DEPTHS: usize = 4;

/// M rows; `EVEN` if `n` is V vectors and the left operand's rows are contiguous.
///
/// # Safety
/// As [`tiles`], M rows of the job from `left` and `out` on.
#[inline(always)]
unsafe fn tile<T: Float, S: Simd<T>, const M: usize, const V: usize, const EVEN: bool>(
    job: &Job<T>,
    left: *const T,
    out: *mut T,
) {
    let Job { n, k, row_step, depth_step, right, right_step, out_step, blend, .. } = *job;
    let last = n - (V - 1) * S::LANES;
    // SAFETY: the caller's contract; the last vector is masked to the columns that exist.
    unsafe {
        let zero = S::splat(T::zero());
        let mut sums = [[zero; V]; M];
        let mut rows = Rows::<T, M, EVEN>::new(left, row_step);
        let (mut r, mut depths) = (right, k);
        while Rows::<T, M, EVEN>::EACH == 1 && depths >= DEPTHS {
            for depth in 0..DEPTHS {
                add::<T, S, M, V, EVEN>(&mut sums, &rows, depth, r, last);
                r = r.wrapping_offset(right_step);
            }
            rows.step(DEPTHS as isize);
            depths -= DEPTHS;
        }
        for _ in 0..depths {
            add::<T, S, M, V, EVEN>(&mut sums, &rows, 0, r, last);
            r = r.wrapping_offset(right_step);
            rows.step(depth_step);
        }
        let (alpha, beta, overwrite) = (S::splat(blend.alpha), S::splat(blend.beta), blend.beta == T::zero());
        for (i, row) in sums.iter().enumerate() {
            let to = out.wrapping_offset(i as isize * out_step);
            for (v, &sum) in row.iter().enumerate() {
                let (to, whole) = (to.add(v * S::LANES), EVEN || v + 1 < V);
                let mut value = S::mul(alpha, sum);
                if !overwrite {
                    let old = if whole { S::load(to) } else { S::load_first(to, last) };
                    value = S::fma(alpha, sum, S::mul(beta, old));
                }
                if whole { S::store(to, value) } else { S::store_first(to, value, last) }
            }
        }
    }
}

/// One depth of a tile: `sums[i][..] += l[i][depth] r[..]`.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn add<T: Float, S: Simd<T>, const M: usize, const V: usize, const EVEN: bool>(
    sums: &mut [[S::V; V]; M],
    rows: &Rows<T, M, EVEN>,
    depth: usize,
    r: *const T,
    last: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut vectors = [S::splat(T::zero()); V];
        for (v, vector) in vectors.iter_mut().enumerate() {
            let from = r.add(v * S::LANES);
            *vector = if EVEN || v + 1 < V { S::load(from) } else { S::load_first(from, last) };
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let factor = S::splat(*rows.at(i).add(depth));
            for (sum, &vector) in row.iter_mut().zip(&vectors) {
                *sum = S::fma(factor, vector, *sum);
            }
        }
    }
}

/// Addresses of a tile's rows of the left operand. Where there are registers for it, each row has its own, which an FMA reads at once; else every fourth,
/// and the others are reached by an index.
struct Rows<T, const M: usize, const EVEN: bool> {
    addresses: [*const T; M],
    row_step: isize,
}

impl<T, const M: usize, const EVEN: bool> Rows<T, M, EVEN> {
    /// Rows of one address.
    const EACH: usize = if EVEN && M <= 8 { 1 } else { 4 };

    #[inline(always)]
    fn new(left: *const T, row_step: isize) -> Self {
        let mut addresses = [left; M];
        for (i, address) in addresses.iter_mut().enumerate() {
            if i % Self::EACH == 0 {
                *address = opaque(left.wrapping_offset(i as isize * row_step));
            }
        }
        Rows { addresses, row_step }
    }

    #[inline(always)]
    fn at(&self, i: usize) -> *const T {
        self.addresses[i - i % Self::EACH].wrapping_offset((i % Self::EACH) as isize * self.row_step)
    }

    #[inline(always)]
    fn step(&mut self, depths: isize) {
        // A loop in steps would not be unrolled, and the addresses stay in memory.
        for (i, address) in self.addresses.iter_mut().enumerate() {
            if i % Self::EACH == 0 {
                *address = opaque(address.wrapping_offset(depths));
            }
        }
    }
}
