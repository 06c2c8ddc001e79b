//! One group of lanes: its memory, and what is done before and after the algorithm.

use super::{ql, tridiagonal};
use crate::batched::lanes::{Lanes, Layout, MOST, Part, read};
use crate::simd::squares::deinterleave;
use crate::simd::vector::Vector;
use crate::simd::{Quads, Simd};
use num_traits::Float;

/// The unit roundoff.
pub(super) fn unit<T: Float>() -> T {
    T::epsilon() / (T::one() + T::one())
}

/// A square below which a vector counts as zero, the matrix being of order 1: `u⁴`, far from underflow.
pub(super) fn threshold<T: Float>() -> T {
    unit::<T>().powi(4)
}

/// Memory of one group of lanes. All in vectors, entry `[i, j]` of a matrix `i ld + j` vectors from its beginning.
#[derive(Clone, Copy)]
pub(crate) struct Room<T> {
    pub(super) n: usize,
    pub(super) ld: usize,
    /// The matrices; then reflectors; then rotations; then eigenvectors, matrix by matrix.
    pub(super) a: *mut T,
    /// Eigenvectors, one after the other.
    pub(super) z: *mut T,
    /// Eigenvalues.
    pub(super) d: *mut T,
    /// Off-diagonal entries.
    pub(super) e: *mut T,
    pub(super) tau: *mut T,
    /// Twice n.
    pub(super) w: *mut T,
    pub(super) zeros: *mut T,
    /// Products of successive reflectors.
    pub(super) overlaps: *mut T,
    /// Places of the eigenvalues in ascending order.
    pub(super) ranks: *mut T,
    /// Vectors: two for short use, the lanes' status, two factors of their scale.
    pub(super) stage: *mut T,
}

/// Vectors from row to row: no power of two of cache lines, or the columns of large matrices share their places in L1.
fn leading(n: usize) -> usize {
    if n < 24 { n } else { (n.div_ceil(8) | 1) * 8 }
}

impl<T> Room<T> {
    /// The stage, and what [`deinterleave`] may read past the last eigenvector.
    const VECTORS: usize = 5 + MOST;

    /// Elements of a room.
    pub(super) fn len(n: usize, lanes: usize) -> usize {
        (2 * n * leading(n) + 8 * n + Self::VECTORS) * lanes
    }

    pub(super) fn new(n: usize, lanes: usize, memory: &mut [T]) -> Self {
        assert!(memory.len() >= Self::len(n, lanes), "eigen: a room is larger");
        let ld = leading(n);
        let p = memory.as_mut_ptr();
        let matrix = n * ld * lanes;
        let line = |i: usize| p.wrapping_add(2 * matrix + i * n * lanes);
        Room {
            n,
            ld,
            a: p,
            z: p.wrapping_add(matrix),
            d: line(0),
            e: line(1),
            tau: line(2),
            w: line(3),
            zeros: line(5),
            overlaps: line(6),
            ranks: line(7),
            stage: line(8),
        }
    }
}

/// The lower triangle in rows of `.0` vectors.
#[derive(Clone, Copy)]
struct Lower(usize);

impl Layout for Lower {
    #[inline(always)]
    fn at(self, i: usize, j: usize) -> (usize, [usize; 2]) {
        (i * self.0 + j, [1, self.0])
    }
}

/// See [`eigen`].
pub(crate) type EigenFn<T> = unsafe fn(&[Room<T>], &[Lanes<*const T>], limit: usize);

/// Eigenvalues into `d`, their ranks into `ranks`, and, lane by lane and in the order of the ranks, eigenvectors into `a`, `ld` elements apart,
/// for G rooms. The third vector of a stage then holds zero where a lane converged, NaN where the matrix was not finite.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; rooms are writable, and there are readable matrices for each.
#[inline(always)]
pub(crate) unsafe fn eigen<T: Float, S: Simd<T>, const G: usize>(
    rooms: &[Room<T>],
    matrices: &[Lanes<*const T>],
    limit: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut group = [rooms[0]; G];
        for g in 0..G {
            group[g] = rooms[g];
            let Room { n, ld, a, .. } = rooms[g];
            // Blocks that reach past a row end in the next one, which is read later, or in the eigenvectors' place.
            read::<T, S, Lower>(Lower(ld), [n, n], Part::Lower, &[T::one(); MOST], &matrices[g], a);
            scale::<T, S>(&group[g]);
            tridiagonal::reduce::<T, S>(&group[g]);
            tridiagonal::form::<T, S>(&group[g]);
        }
        ql::iterate::<T, S, G>(&group, limit);
        for room in &group {
            finish::<T, S>(room);
        }
    }
}

/// Multiplies each matrix by a power of two that makes its largest entry of order 1, or, if an entry is not finite, replaces it by zero, so that
/// its lane, which is reported anyway, keeps no other waiting.
///
/// # Safety
/// As [`eigen`].
#[inline(always)]
unsafe fn scale<T: Float, S: Simd<T>>(room: &Room<T>) {
    let Room { n, ld, a, stage, .. } = *room;
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let zero = Vector::<T, S>::splat(T::zero());
        let (mut largest, mut finite) = (zero, zero);
        for i in 0..n {
            for j in 0..=i {
                let x = Vector::<T, S>::load(a.add((i * ld + j) * l));
                finite = x.fma(zero, finite);
                largest = x.abs().le(largest, largest, x.abs());
            }
        }
        let (bad, one, many) = (stage.add(2 * l), stage.add(3 * l), stage.add(4 * l));
        largest.store(one);
        finite.store(bad);
        let two = T::one() + T::one();
        for lane in 0..l {
            let x = *one.add(lane);
            let mut exponent = 0;
            if x.is_finite() && x > T::zero() {
                let (mantissa, power, _) = x.integer_decode();
                exponent = i32::from(power) + mantissa.ilog2() as i32;
            }
            // In two factors: the scale of a subnormal is not a number.
            *one.add(lane) = two.powi(-(exponent / 2));
            *many.add(lane) = two.powi(-(exponent - exponent / 2));
        }
        let (half, rest) = (Vector::<T, S>::load(one), Vector::<T, S>::load(many));
        for i in 0..n {
            for j in 0..=i {
                let at = a.add((i * ld + j) * l);
                finite.le(finite, Vector::load(at) * half * rest, zero).store(at);
            }
        }
    }
}

/// Undoes the scaling, ranks the eigenvalues, and says which lanes converged.
///
/// # Safety
/// As [`eigen`].
#[inline(always)]
unsafe fn finish<T: Float, S: Simd<T>>(room: &Room<T>) {
    let Room { n, ld, a, z, d, e, ranks, stage, .. } = *room;
    let l = S::LANES;
    // SAFETY: every index is below n; the caller's contract.
    unsafe {
        let (zero, one) = (Vector::<T, S>::splat(T::zero()), Vector::<T, S>::splat(T::one()));
        let status = stage.add(2 * l);
        let mut left = Vector::<T, S>::load(status);
        let half = one / Vector::load(stage.add(3 * l));
        let rest = one / Vector::load(stage.add(4 * l));
        for i in 0..n {
            left = left + Vector::<T, S>::load(e.add(i * l)).abs();
            (Vector::<T, S>::load(d.add(i * l)) * half * rest).store(d.add(i * l));
            zero.store(ranks.add(i * l));
        }
        left.store(status);
        for j in 1..n {
            let d_j = Vector::<T, S>::load(d.add(j * l));
            let mut rank = zero;
            for i in 0..j {
                let at = ranks.add(i * l);
                // Of equal ones the first comes first.
                let before = Vector::<T, S>::load(d.add(i * l)).le(d_j, one, zero);
                rank = rank + before;
                (Vector::<T, S>::load(at) + (one - before)).store(at);
            }
            rank.store(ranks.add(j * l));
        }
        let mut columns = [core::ptr::null_mut(); MOST];
        let mut following = Quads::NONE;
        for q in 0..MOST / 4 {
            following.set::<T>(q, (4 * q * l, l));
        }
        for j in 0..n {
            for i in 0..n {
                // The sign of a zero depends on how long other lanes went on with identity rotations: -0 becomes 0.
                let at = z.add((j * ld + i) * l);
                (Vector::<T, S>::load(at) + zero).store(at);
            }
            for lane in 0..l {
                let rank = (*ranks.add(j * l + lane)).to_usize().unwrap_or(0);
                columns[lane] = a.add((lane * n + rank) * ld);
            }
            for start in (0..n).step_by(l) {
                let entries = z.add((j * ld + start) * l);
                for share in 0..l / S::SIDE {
                    let v = deinterleave::<T, S>(entries, &following, share);
                    for (&column, &vector) in columns[share * S::SIDE..].iter().zip(&v).take(S::SIDE) {
                        S::store_first(column.add(start), vector, l.min(n - start));
                    }
                }
            }
        }
    }
}
