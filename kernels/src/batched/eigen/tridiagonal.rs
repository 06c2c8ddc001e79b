//! Householder's reduction `A = Q T Q^T` to tridiagonal form, in every lane (LAPACK's `sytd2` and `org2l`).

use super::room::{Room, threshold};
use crate::simd::Simd;
use crate::simd::vector::Vector;
use num_traits::Float;

/// Rows that share the loads of a vector.
const ROWS: usize = 4;

/// Reduces the lower triangle of `a`: leaves `T` in `d` and `e`, reflector `k` (`I - tau v v^T`, `v[k + 1] = 1`) in row `k` right of the
/// diagonal and in `tau`. `2/3 n³` multiply-adds.
///
/// The update of a step, `A - v w^T - w v^T`, and the next step's product `A v` read the matrix once.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; `room` is writable.
#[inline(always)]
pub(super) unsafe fn reduce<T: Float, S: Simd<T>>(room: &Room<T>) {
    let Room { n, ld, a, d, e, tau, w, zeros, .. } = *room;
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let zero = Vector::<T, S>::splat(T::zero());
        let one = Vector::<T, S>::splat(T::one());
        let half = Vector::<T, S>::splat(T::one() / (T::one() + T::one()));
        let small = Vector::<T, S>::splat(threshold::<T>());
        for i in 0..n {
            zero.store(zeros.add(i * l));
        }
        let at = |i: usize, j: usize| a.wrapping_add((i * ld + j) * l);
        // The reflector and its product of the step before, not yet subtracted.
        let mut v_old = zeros.cast_const();
        let mut w_old = zeros.cast_const();
        for k in 0..n {
            let w_new = w.add(k % 2 * n * l);
            let (v_k, w_k) = (Vector::<T, S>::load(v_old.add(k * l)), Vector::<T, S>::load(w_old.add(k * l)));
            let diagonal = Vector::<T, S>::load(at(k, k));
            w_k.fnma(v_k, w_k.fnma(v_k, diagonal)).store(d.add(k * l));
            if k + 1 == n {
                zero.store(e.add(k * l));
                break;
            }
            // Column k becomes the reflector.
            let v = at(k, 0);
            let mut sum = zero;
            for i in k + 1..n {
                let (v_i, w_i) = (Vector::<T, S>::load(v_old.add(i * l)), Vector::<T, S>::load(w_old.add(i * l)));
                let x = w_i.fnma(v_k, v_i.fnma(w_k, Vector::load(at(i, k))));
                x.store(v.add(i * l));
                if i > k + 1 {
                    sum = x.fma(x, sum);
                }
            }
            let alpha = Vector::<T, S>::load(v.add((k + 1) * l));
            if k + 2 == n {
                alpha.store(e.add(k * l));
                // The last diagonal entry still lacks this step's update, which is that of the step before.
                continue;
            }
            let norm = alpha.fma(alpha, sum).sqrt();
            let beta = alpha.le(zero, norm, zero - norm);
            // What lies below is nothing: no reflection.
            let tau_k = sum.le(small, zero, (beta - alpha) / beta);
            let inverse = sum.le(small, zero, one / (alpha - beta));
            sum.le(small, alpha, beta).store(e.add(k * l));
            tau_k.store(tau.add(k * l));
            one.store(v.add((k + 1) * l));
            for i in k + 2..n {
                (Vector::<T, S>::load(v.add(i * l)) * inverse).store(v.add(i * l));
            }
            let mut row = k + 1;
            while row + ROWS <= n {
                block::<T, S, ROWS>(at(row, 0), ld, k + 1, row, [v_old, w_old], v, w_new);
                row += ROWS;
            }
            while row < n {
                block::<T, S, 1>(at(row, 0), ld, k + 1, row, [v_old, w_old], v, w_new);
                row += 1;
            }
            // w = tau A v - (tau / 2) (tau A v . v) v
            let mut dot = zero;
            for i in k + 1..n {
                dot = Vector::<T, S>::load(w_new.add(i * l)).fma(Vector::load(v.add(i * l)), dot);
            }
            let correction = half * tau_k * tau_k * dot;
            for i in k + 1..n {
                let p = Vector::<T, S>::load(w_new.add(i * l)) * tau_k;
                correction.fnma(Vector::load(v.add(i * l)), p).store(w_new.add(i * l));
            }
            v_old = v.cast_const();
            w_old = w_new.cast_const();
        }
    }
}

/// Rows `row..row + R` of the lower triangle right of column `first`: subtracts `v w^T + w v^T` of the step before, and adds what they, and by
/// symmetry their columns, contribute to `p = A v`. Rows come in order: those of `p` from `row` on have not been written.
///
/// # Safety
/// As [`reduce`]; `a` is the beginning of row `row`.
#[inline(always)]
unsafe fn block<T: Float, S: Simd<T>, const R: usize>(
    a: *mut T,
    ld: usize,
    first: usize,
    row: usize,
    [v_old, w_old]: [*const T; 2],
    v: *const T,
    p: *mut T,
) {
    let l = S::LANES;
    // SAFETY: the caller's contract.
    unsafe {
        let zero = Vector::<T, S>::splat(T::zero());
        let (mut vo, mut wo, mut vn, mut sums) = ([zero; R], [zero; R], [zero; R], [zero; R]);
        for r in 0..R {
            vo[r] = Vector::load(v_old.add((row + r) * l));
            wo[r] = Vector::load(w_old.add((row + r) * l));
            vn[r] = Vector::load(v.add((row + r) * l));
        }
        for j in first..row {
            let (vo_j, wo_j) = (Vector::<T, S>::load(v_old.add(j * l)), Vector::<T, S>::load(w_old.add(j * l)));
            let v_j = Vector::<T, S>::load(v.add(j * l));
            let mut p_j = Vector::<T, S>::load(p.add(j * l));
            for r in 0..R {
                let at = a.add((r * ld + j) * l);
                let x = wo[r].fnma(vo_j, vo[r].fnma(wo_j, Vector::load(at)));
                x.store(at);
                sums[r] = x.fma(v_j, sums[r]);
                p_j = x.fma(vn[r], p_j);
            }
            p_j.store(p.add(j * l));
        }
        for r in 0..R {
            for c in 0..=r {
                let at = a.add((r * ld + row + c) * l);
                let x = wo[r].fnma(vo[c], vo[r].fnma(wo[c], Vector::load(at)));
                x.store(at);
                sums[r] = x.fma(vn[c], sums[r]);
                if c < r {
                    sums[c] = x.fma(vn[r], sums[c]);
                }
            }
        }
        for r in 0..R {
            sums[r].store(p.add((row + r) * l));
        }
    }
}

/// Forms `Q = H_0 H_1 ..` of the reflectors of [`reduce`], column `j` from `z + j ld` on. `2/3 n³` multiply-adds.
///
/// # Safety
/// As [`reduce`].
#[inline(always)]
pub(super) unsafe fn form<T: Float, S: Simd<T>>(room: &Room<T>) {
    let Room { n, ld, a, z, overlaps, .. } = *room;
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let (zero, one) = (Vector::<T, S>::splat(T::zero()), Vector::<T, S>::splat(T::one()));
        for j in 0..n {
            for i in 0..ld {
                (if i == j { one } else { zero }).store(z.add((j * ld + i) * l));
            }
        }
        for k in 1..n.saturating_sub(2) {
            let (before, v) = (a.add((k - 1) * ld * l), a.add(k * ld * l));
            let mut sum = zero;
            for i in k + 1..n {
                sum = Vector::<T, S>::load(before.add(i * l)).fma(Vector::load(v.add(i * l)), sum);
            }
            sum.store(overlaps.add(k * l));
        }
        let mut j = 1;
        while j + ROWS <= n {
            columns::<T, S, ROWS>(room, j);
            j += ROWS;
        }
        while j < n {
            columns::<T, S, 1>(room, j);
            j += 1;
        }
    }
}

/// Columns `j..j + C` of `Q`, which stay in L1: the reflectors that reach them, the last first, two at a time.
///
/// # Safety
/// As [`reduce`].
#[inline(always)]
unsafe fn columns<T: Float, S: Simd<T>, const C: usize>(room: &Room<T>, j: usize) {
    let Room { n, ld, z, .. } = *room;
    // SAFETY: the caller's contract.
    unsafe {
        let mut k = (j + C - 1).min(n - 2);
        let columns = z.add(j * ld * S::LANES);
        while k >= 2 {
            reflect_twice::<T, S, C>(room, columns, k - 1);
            k -= 2;
        }
        if k == 1 {
            reflect::<T, S, C>(room, columns, 0);
        }
    }
}

/// `z <- (I - tau_k v_k v_k^T) z` for C columns.
///
/// # Safety
/// As [`reduce`].
#[inline(always)]
unsafe fn reflect<T: Float, S: Simd<T>, const C: usize>(room: &Room<T>, z: *mut T, k: usize) {
    let Room { n, ld, a, tau, .. } = *room;
    let l = S::LANES;
    // SAFETY: the caller's contract.
    unsafe {
        let v = a.add(k * ld * l);
        let tau = Vector::<T, S>::load(tau.add(k * l));
        let mut dots = [Vector::<T, S>::splat(T::zero()); C];
        for i in k + 1..n {
            let v_i = Vector::<T, S>::load(v.add(i * l));
            for c in 0..C {
                dots[c] = v_i.fma(Vector::load(z.add((c * ld + i) * l)), dots[c]);
            }
        }
        for dot in &mut dots {
            *dot = *dot * tau;
        }
        for i in k + 1..n {
            let v_i = Vector::<T, S>::load(v.add(i * l));
            for c in 0..C {
                let at = z.add((c * ld + i) * l);
                v_i.fnma(dots[c], Vector::load(at)).store(at);
            }
        }
    }
}

/// Reflections `k` and then `k - 1` in two passes over C columns, not four: the second's product with the first's result follows from the
/// products with `z` and `v_k-1^T v_k`.
///
/// # Safety
/// As [`reduce`].
#[inline(always)]
unsafe fn reflect_twice<T: Float, S: Simd<T>, const C: usize>(room: &Room<T>, z: *mut T, k: usize) {
    let Room { n, ld, a, tau, overlaps, .. } = *room;
    let l = S::LANES;
    // SAFETY: the caller's contract.
    unsafe {
        let (first, second) = (a.add(k * ld * l), a.add((k - 1) * ld * l));
        let tau_first = Vector::<T, S>::load(tau.add(k * l));
        let tau_second = Vector::<T, S>::load(tau.add((k - 1) * l));
        let overlap = Vector::<T, S>::load(overlaps.add(k * l));
        let zero = Vector::<T, S>::splat(T::zero());
        let (mut one, mut two) = ([zero; C], [zero; C]);
        // The second reflector begins a row above the first, with 1.
        for c in 0..C {
            two[c] = Vector::load(z.add((c * ld + k) * l));
        }
        for i in k + 1..n {
            let (v, w) = (Vector::<T, S>::load(first.add(i * l)), Vector::<T, S>::load(second.add(i * l)));
            for c in 0..C {
                let x = Vector::load(z.add((c * ld + i) * l));
                one[c] = v.fma(x, one[c]);
                two[c] = w.fma(x, two[c]);
            }
        }
        for c in 0..C {
            one[c] = one[c] * tau_first;
            two[c] = one[c].fnma(overlap, two[c]) * tau_second;
            let at = z.add((c * ld + k) * l);
            (Vector::load(at) - two[c]).store(at);
        }
        for i in k + 1..n {
            let (v, w) = (Vector::<T, S>::load(first.add(i * l)), Vector::<T, S>::load(second.add(i * l)));
            for c in 0..C {
                let at = z.add((c * ld + i) * l);
                w.fnma(two[c], v.fnma(one[c], Vector::load(at))).store(at);
            }
        }
    }
}
