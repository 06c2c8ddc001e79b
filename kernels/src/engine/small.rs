//! Products of a few rows, columns and depths, on the calling thread: operands are read where they lie, nothing is planned or packed.
//!
//! ```text
//! for each panel of columns                                  at most VECTORS vectors, the last one masked
//!     for each step of rows                                  register tile, as the engine's
//!         c[rows][cols] <- beta c + alpha sum_p l[rows][p] r[p][cols]
//! ```
//!
//! A left operand may have any strides, for its entries are broadcast one at a time. Rows of the right operand and of the output must be
//! contiguous: what is not, or is of another type, is copied first.

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
    left_steps: [isize; 2],
    right: *const T,
    right_step: isize,
    out: *mut T,
    out_step: isize,
    blend: Blend<T>,
}

/// `out <- beta out + alpha lhs rhs` of a shape that [`suits`], any strides.
#[inline(always)]
pub(crate) fn product<L: Input, R: Input<Acc = L::Acc>>(
    mut out: MatMut<'_, L::Acc>,
    blend: Blend<L::Acc>,
    lhs: MatRef<'_, L>,
    rhs: MatRef<'_, R>,
    isa: Isa,
    stack: &mut MemStack,
) {
    let kernels = L::Acc::kernels(isa);
    let ([m, k], n) = (lhs.shape(), rhs.cols());
    debug_assert!(suits(m, n, k) && out.shape() == [m, n] && rhs.rows() == k, "small product: shapes disagree");
    let [out_step, contiguous] = out.strides();
    if let (Some(left), Some(right), 1) = (lhs.cast::<L::Acc>(), rhs.cast::<L::Acc>(), contiguous)
        && right.strides()[1] == 1
    {
        let out = out.as_mut_ptr();
        let (left_steps, right_step) = (left.strides(), right.strides()[0]);
        let (left, right) = (left.as_ptr(), right.as_ptr());
        let mut job = Job { m, n, k, left, left_steps, right, right_step, out, out_step, blend };
        // SAFETY: the kernels belong to an ISA this CPU has; the views hold these shapes, rows contiguous where they must be.
        return unsafe { compute(&mut job, kernels) };
    }
    copied(out, blend, lhs, rhs, kernels, stack);
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
    let ([m, k], n, [row_step, col_step]) = (lhs.shape(), rhs.cols(), out.strides());
    if row_step == 1 && col_step != 1 {
        // A column-major output is computed as its transpose.
        return copied(out.transpose(), blend, rhs.transpose(), lhs.transpose(), kernels, stack);
    }
    let (memory, _) = aligned::<L::Acc>(stack, m * k + k * n + m * n);
    let (left_memory, memory) = memory.split_at_mut(m * k);
    let (right_memory, out_memory) = memory.split_at_mut(k * n);
    let (left, left_steps) = match lhs.cast::<L::Acc>() {
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
    let mut job =
        Job { m, n, k, left, left_steps, right, right_step, out: out.as_mut_ptr(), out_step: row_step, blend };
    if col_step == 1 {
        // SAFETY: the kernels belong to an ISA this CPU has; operands and output hold these shapes, rows contiguous where they must be.
        return unsafe { compute(&mut job, kernels) };
    }
    let tile: *mut L::Acc = out_memory.as_mut_ptr().cast();
    let mut job = Job { out: tile, out_step: n as isize, blend: Blend::set(num_traits::One::one()), ..job };
    // SAFETY: as above, into memory for m rows of n, all of which it writes.
    let tile = unsafe {
        compute(&mut job, kernels);
        core::slice::from_raw_parts(tile, m * n)
    };
    for (i, row) in tile.chunks_exact(n.max(1)).enumerate() {
        let to = out.as_mut_ptr().wrapping_offset(i as isize * row_step);
        // SAFETY: row i of the output.
        unsafe { blend_line(to, col_step, row, blend, kernels) };
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

/// Computes `count` times M rows, the first of them `first`, of V vectors of columns: see [`tiles`].
pub(crate) type SmallFn<T> = unsafe fn(job: &Job<T>, first: usize, count: usize);

/// Computes a job: by panels of columns, and for each by 8, 4, 2 and 1 rows.
///
/// # Safety
/// The kernels belong to an ISA this CPU has; the operands are readable and the output is writable at the job's shapes and steps.
#[inline(always)]
unsafe fn compute<T>(job: &mut Job<T>, kernels: &Kernels<T>) {
    let mut rest = job.n;
    while rest > 0 {
        job.n = rest.min(kernels.nr);
        let vectors = job.n.div_ceil(kernels.lanes);
        let mut first = 0;
        while first < job.m {
            let rows = kernels.small_rows(vectors, job.m - first);
            let count = (job.m - first) / rows;
            // SAFETY: the caller's contract; a panel of the job's columns, and rows below m.
            unsafe { kernels.small_tiles(vectors, rows)(job, first, count) };
            first += count * rows;
        }
        rest -= job.n;
        job.right = job.right.wrapping_add(job.n);
        job.out = job.out.wrapping_add(job.n);
    }
}

/// `count` times M rows of V vectors of columns, the last of which may be masked.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: as [`compute`], `n` is more than V - 1 vectors and at most V, rows
/// `first..first + count M` are below `m`.
#[inline(always)]
pub(crate) unsafe fn tiles<T: Float, S: Simd<T>, const M: usize, const V: usize>(
    job: &Job<T>,
    first: usize,
    count: usize,
) {
    let whole = job.n == V * S::LANES;
    for group in 0..count {
        // SAFETY: the caller's contract.
        unsafe {
            match whole {
                true => tile::<T, S, M, V, true>(job, first + group * M),
                false => tile::<T, S, M, V, false>(job, first + group * M),
            }
        }
    }
}

/// Rows `first..first + M`.
///
/// # Safety
/// As [`tiles`]; `WHOLE` if `n` is V vectors.
#[inline(always)]
unsafe fn tile<T: Float, S: Simd<T>, const M: usize, const V: usize, const WHOLE: bool>(job: &Job<T>, first: usize) {
    let Job { n, k, left, left_steps: [row_step, depth_step], right, right_step, out, out_step, blend, .. } = *job;
    let last = n - (V - 1) * S::LANES;
    // SAFETY: the caller's contract; the last vector is masked to the columns that exist.
    unsafe {
        let zero = S::splat(T::zero());
        let mut sums = [[zero; V]; M];
        // A pointer to each row: from one address to the next the compiler would count up, one addition after the other.
        let mut rows = [left; M];
        for (i, row) in rows.iter_mut().enumerate() {
            let mut start = left.wrapping_offset((first + i) as isize * row_step);
            #[cfg(not(miri))]
            core::arch::asm!("/* {0} */", inout(reg) start, options(pure, readonly, nostack, preserves_flags));
            *row = start;
        }
        let (mut depth, mut r) = (0, right);
        for _ in 0..k {
            let mut vectors = [zero; V];
            for (v, vector) in vectors.iter_mut().enumerate() {
                let from = r.add(v * S::LANES);
                *vector = if WHOLE || v + 1 < V { S::load(from) } else { S::load_first(from, last) };
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let factor = S::splat(*rows[i].offset(depth));
                for (sum, &vector) in row.iter_mut().zip(&vectors) {
                    *sum = S::fma(factor, vector, *sum);
                }
            }
            (depth, r) = (depth + depth_step, r.wrapping_offset(right_step));
        }
        let (alpha, beta, overwrite) = (S::splat(blend.alpha), S::splat(blend.beta), blend.beta == T::zero());
        for (i, row) in sums.iter().enumerate() {
            let to = out.wrapping_offset((first + i) as isize * out_step);
            for (v, &sum) in row.iter().enumerate() {
                let (to, whole) = (to.add(v * S::LANES), WHOLE || v + 1 < V);
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
