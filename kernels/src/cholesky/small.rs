//! The damped inverse of one small matrix, in L1 and registers, on the calling thread: by whole rows, of which each is a few vectors.
//!
//! ```text
//! A = U^T U       u_j <- a_j / sqrt(a_jj),         a_i <- a_i - u_ji u_j      for i > j
//! Z = U^-1        z_k <- z_k / u_kk,               z_j <- z_j - u_jk z_k      for j < k,  from Z = I, k downwards
//! X = Z Z^T       x_i  = sum_k z_ik (Z^T)_k
//! ```
//!
//! `Z^T` is the inverse of the factor `L = U^T`; its rows are solved for from `Z^T L = I`, so that it is the left residual that is small.

use super::{LEAF, Pivot};
use crate::element::Element;
use crate::engine::epilogue::Triangle;
use crate::isa::Isa;
use crate::simd::{Simd, squares};
use crate::view::{MatMut, MatRef};
use core::mem::MaybeUninit;
use num_traits::Float;

/// The largest order: that of a leaf.
pub(crate) const SMALL: usize = LEAF;

/// `out <- (scale A + damping I)^-1`: pointers, strides, and what is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Job<T> {
    n: usize,
    a: *const T,
    a_steps: [isize; 2],
    scale: T,
    damping: T,
    out: *mut T,
    out_steps: [isize; 2],
    triangle: Triangle,
}

/// As [`damped_inverse`](super::damped_inverse), of an order up to [`SMALL`]. A matrix that fails leaves `out` as it was.
pub(super) fn damped_inverse<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    triangle: Triangle,
    isa: Isa,
) -> Result<(), Pivot<T>> {
    let (kernels, n) = (T::kernels(isa), a.rows());
    assert!(n <= SMALL && out.shape() == [n, n] && a.cols() == n, "damped_inverse: shapes disagree");
    if n == 0 {
        return Ok(());
    }
    let (out, out_steps) = (out.as_mut_ptr(), out.strides());
    let job = Job { n, a: a.as_ptr(), a_steps: a.strides(), scale, damping, out, out_steps, triangle };
    // SAFETY: the kernels belong to an ISA this CPU has; both views have n rows and columns.
    unsafe { (kernels.small_inverse(n))(&job) }
}

/// What computes a [`Job`].
pub(crate) type InverseFn<T> = unsafe fn(job: &Job<T>) -> Result<(), Pivot<T>>;

/// How many widths of rows there are: 1, 2, 4, .. vectors.
pub(crate) const WIDTHS: usize = 5;

/// Rows of W vectors.
type Rows<V, const W: usize> = [[MaybeUninit<V>; W]; SMALL];

/// Computes a job by rows of W vectors.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: `n <= W LANES` and `0 < n <= SMALL`, the matrix is readable and the output
/// writable.
#[inline(always)]
pub(crate) unsafe fn inverse<T: Float, S: Simd<T>, const W: usize>(job: &Job<T>) -> Result<(), Pivot<T>> {
    let n = job.n;
    let mut u: Rows<S::V, W> = [[const { MaybeUninit::uninit() }; W]; SMALL];
    let mut z: Rows<S::V, W> = [[const { MaybeUninit::uninit() }; W]; SMALL];
    let mut roots = [T::zero(); SMALL];
    let (u, z): (*mut T, *mut T) = (u.as_mut_ptr().cast(), z.as_mut_ptr().cast());
    // SAFETY: both blocks hold SMALL rows of W vectors, n <= W LANES; each step reads what those before have written.
    unsafe {
        load::<T, S, W>(job, u, z);
        factor::<T, S, W>(n, u, &mut roots)?;
        invert::<T, S, W>(n, u, z, &roots);
        transpose::<T, S, W>(n, z, u, false);
        multiply::<T, S, W>(job, z, u);
    }
    Ok(())
}

/// Address of vector `v` of row `i`.
#[inline(always)]
fn at<T: Copy, S: Simd<T>, const W: usize>(rows: *mut T, i: usize, v: usize) -> *mut T {
    rows.wrapping_add(i * W * S::LANES + v * S::LANES)
}

/// Elements of vector `v` in rows of `n`.
#[inline(always)]
fn part<T: Copy, S: Simd<T>>(n: usize, v: usize) -> usize {
    n.saturating_sub(v * S::LANES).min(S::LANES)
}

/// The upper triangle of `scale A + damping I`, from the lower one of the matrix. What is written below the diagonal is not to be used;
/// columns past the last are zero.
///
/// # Safety
/// As [`inverse`]; `z` is free to be used.
#[inline(always)]
unsafe fn load<T: Float, S: Simd<T>, const W: usize>(job: &Job<T>, u: *mut T, z: *mut T) {
    let Job { n, a, a_steps: [row_step, col_step], scale, damping, .. } = *job;
    let (wide, width) = (W * S::LANES, n.div_ceil(S::LANES));
    // SAFETY: rows below n of both blocks, vectors below W; the matrix is read at indices below n alone.
    unsafe {
        let factor = S::splat(scale);
        // Below this order transposing squares costs more than moving single entries.
        let few = n <= SCALAR;
        if row_step == 1 || (col_step == 1 && !few) {
            let (to, step) = if row_step == 1 { (u, col_step) } else { (z, row_step) };
            for i in 0..n {
                let from = a.wrapping_offset(i as isize * step);
                for v in 0..width {
                    let row = S::load_first(from.wrapping_add(v * S::LANES), part::<T, S>(n, v));
                    S::store(at::<T, S, W>(to, i, v), S::mul(factor, row));
                }
            }
            if row_step != 1 {
                for i in n..n.next_multiple_of(S::LANES) {
                    for v in 0..width {
                        S::store(at::<T, S, W>(z, i, v), S::splat(T::zero()));
                    }
                }
                transpose::<T, S, W>(n, z, u, true);
            }
        } else {
            for j in 0..n {
                for v in 0..width {
                    S::store(at::<T, S, W>(u, j, v), S::splat(T::zero()));
                }
            }
            for i in 0..n {
                for j in 0..=i {
                    *u.add(j * wide + i) = scale * *a.offset(i as isize * row_step + j as isize * col_step);
                }
            }
        }
        for i in 0..n {
            let diagonal = u.add(i * wide + i);
            *diagonal = *diagonal + damping;
        }
    }
}

/// Orders up to which entries are moved one by one.
const SCALAR: usize = 8;

/// `to <- from^T` in squares of LANES: the lower triangle of `from`, or the upper one.
///
/// # Safety
/// As [`inverse`]; whole squares of `from` have been written.
#[inline(always)]
unsafe fn transpose<T: Float, S: Simd<T>, const W: usize>(n: usize, from: *mut T, to: *mut T, lower: bool) {
    let wide = W * S::LANES;
    for i in 0..n.div_ceil(S::LANES) {
        for j in 0..=i {
            let (row, col) = if lower { (i, j) } else { (j, i) };
            // SAFETY: square (row, col) of `from`, square (col, row) of `to`.
            unsafe {
                let from = at::<T, S, W>(from, row * S::LANES, col);
                squares::transpose::<T, S>(at::<T, S, W>(to, col * S::LANES, row), wide, from, wide as isize);
            }
        }
    }
}

/// `A = U^T U` in place; U's rows come out negated, its diagonal in `roots`.
///
/// # Safety
/// As [`inverse`].
#[inline(always)]
unsafe fn factor<T: Float, S: Simd<T>, const W: usize>(
    n: usize,
    u: *mut T,
    roots: &mut [T; SMALL],
) -> Result<(), Pivot<T>> {
    let (wide, width) = (W * S::LANES, n.div_ceil(S::LANES));
    // SAFETY: rows and columns below n, vectors below W.
    unsafe {
        let minus = S::splat(-T::one());
        for j in 0..n {
            let value = *u.add(j * wide + j);
            if !(value > T::zero() && value.is_finite()) {
                return Err(Pivot { index: j, value });
            }
            let root = value.sqrt();
            *roots.get_unchecked_mut(j) = root;
            let pivot = S::splat(-root);
            for v in j / S::LANES..width {
                let row = S::div(S::load(at::<T, S, W>(u, j, v)), pivot);
                S::store(at::<T, S, W>(u, j, v), row);
                let row = S::mul(row, minus);
                // Rows below this vector's last column do not reach it.
                for i in j + 1..n.min((v + 1) * S::LANES) {
                    let to = at::<T, S, W>(u, i, v);
                    S::store(to, S::fma(S::splat(*u.add(j * wide + i)), row, S::load(to)));
                }
            }
        }
    }
    Ok(())
}

/// `Z = U^-1`, from `-U` and its diagonal.
///
/// # Safety
/// As [`inverse`].
#[inline(always)]
unsafe fn invert<T: Float, S: Simd<T>, const W: usize>(n: usize, u: *const T, z: *mut T, roots: &[T; SMALL]) {
    let (wide, width) = (W * S::LANES, n.div_ceil(S::LANES));
    // SAFETY: rows and columns below n, vectors below W.
    unsafe {
        for i in 0..n.next_multiple_of(S::LANES).min(SMALL) {
            for v in 0..width {
                S::store(at::<T, S, W>(z, i, v), S::splat(T::zero()));
            }
            *z.add(i * wide + i) = T::one();
        }
        for k in (0..n).rev() {
            let pivot = S::splat(*roots.get_unchecked(k));
            for v in k / S::LANES..width {
                let row = S::div(S::load(at::<T, S, W>(z, k, v)), pivot);
                S::store(at::<T, S, W>(z, k, v), row);
                for j in 0..k {
                    let to = at::<T, S, W>(z, j, v);
                    S::store(to, S::fma(S::splat(*u.add(j * wide + k)), row, S::load(to)));
                }
            }
        }
    }
}

/// `X = Z Z^T` into the output, with `y = Z^T`.
///
/// # Safety
/// As [`inverse`].
#[inline(always)]
unsafe fn multiply<T: Float, S: Simd<T>, const W: usize>(job: &Job<T>, z: *mut T, y: *mut T) {
    let width = job.n.div_ceil(S::LANES);
    // SAFETY: rows below n in steps, vectors below W.
    unsafe {
        for v in 0..width {
            // Rows whose part of the vector lies above the diagonal are not computed for a lower triangle.
            let mut i = if job.triangle == Triangle::Lower { v * S::LANES } else { 0 };
            while i + 8 <= job.n {
                product_rows::<T, S, W, 8>(job, i, v, z, y);
                i += 8;
            }
            while i + 4 <= job.n {
                product_rows::<T, S, W, 4>(job, i, v, z, y);
                i += 4;
            }
            while i < job.n {
                product_rows::<T, S, W, 1>(job, i, v, z, y);
                i += 1;
            }
        }
    }
}

/// Vector `v` of M rows of X.
///
/// # Safety
/// As [`inverse`]; the rows are below n.
#[inline(always)]
unsafe fn product_rows<T: Float, S: Simd<T>, const W: usize, const M: usize>(
    job: &Job<T>,
    first: usize,
    v: usize,
    z: *const T,
    y: *mut T,
) {
    let Job { n, out, out_steps: [row_step, col_step], triangle, .. } = *job;
    let wide = W * S::LANES;
    // SAFETY: the caller's contract; rows of y before vector v are zero there.
    unsafe {
        let mut sums = [S::splat(T::zero()); M];
        for k in first.max(v * S::LANES)..n {
            let row = S::load(at::<T, S, W>(y, k, v));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(S::splat(*z.add((first + i) * wide + k)), row, *sum);
            }
        }
        for (i, &sum) in sums.iter().enumerate() {
            let i = first + i;
            let cols = match triangle {
                Triangle::Full => part::<T, S>(n, v),
                Triangle::Lower => part::<T, S>(i + 1, v),
            };
            let to = out.wrapping_offset(i as isize * row_step + (v * S::LANES) as isize * col_step);
            if col_step == 1 {
                S::store_first(to, sum, cols);
            } else if row_step == 1 && triangle == Triangle::Full {
                // Symmetric: a row is a column.
                let to = out.wrapping_offset(i as isize * col_step).wrapping_add(v * S::LANES);
                S::store_first(to, sum, cols);
            } else {
                let mut row = MaybeUninit::<S::V>::uninit();
                S::store(row.as_mut_ptr().cast(), sum);
                for c in 0..cols {
                    *to.offset(c as isize * col_step) = *row.as_ptr().cast::<T>().add(c);
                }
            }
        }
    }
}
