//! From sums over segments to the factor: rows of the output, one channel's taps at a time.
//!
//! The block of taps `(t, t')` is the sum over the segments of their window. Sums over the outer axes are shared by all taps of the last
//! axis, so they are taken first:
//!
//! ```text
//! partial[t' outer][segment x][class x, c']  =  sum over segments (z, y) of the window of the outer taps
//! row (c, t)[c', t']                         =  sum over segments x of the window of the last taps of partial
//! ```

use super::correlate::{Slots, TilePair};
use super::correlation::{Correlation, Kind};
use super::geometry::FeatureOrder;
use crate::simd::Simd;
use num_traits::Float;

/// What is read to write rows of the output: the sums of one pair of tiles, seen from one side.
pub(crate) struct Assembly<'a, T> {
    pub(crate) correlation: &'a Correlation,
    pub(crate) pair: TilePair,
    pub(crate) slots: Slots,
    pub(crate) sums: *const T,
    pub(crate) order: FeatureOrder,
    /// Whether rows are channels of the right tile, columns those of the left: the transposed block.
    pub(crate) transposed: bool,
}

/// Which sums hold a pair of taps: those of its own class, or of the transposed one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Own,
    Transposed,
}

/// Elements of the scratch of [`Assembly::rows`]: partial sums of both sides, and one row for each tap of the last axis.
pub(crate) fn scratch_len(correlation: &Correlation) -> (usize, usize) {
    let [z, y, x] = correlation.axes.each_ref();
    let slots: usize = x.groups.iter().map(|group| group.segments.len()).sum();
    let partial = z.kernel * y.kernel * slots * correlation.most_classes()[2] * correlation.width;
    (2 * partial, x.kernel * z.kernel * y.kernel * x.kernel * correlation.width)
}

impl<T: Float> Assembly<'_, T> {
    fn widths(&self) -> [usize; 2] {
        self.pair.tiles.map(|tile| self.correlation.tile_width(tile))
    }

    /// Channels of rows and of columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let [left, right] = self.widths();
        if self.transposed { [right, left] } else { [left, right] }
    }

    /// Which side holds taps whose first sign that is not zero is `sign`.
    fn side(&self, sign: isize) -> Side {
        match (self.pair.kind(), self.transposed) {
            (Kind::Off, false) => Side::Own,
            (Kind::Off, true) => Side::Transposed,
            (Kind::Diagonal, _) if sign >= 0 => Side::Own,
            (Kind::Diagonal, _) => Side::Transposed,
        }
    }

    /// For channel `c` and outer taps `[z, y]`, the rows of all taps of the last axis, `rows[q * taps * width + ..]`: entry `(c', t')` at
    /// `c' taps + t'` (order channel, taps) or `t' width + c'`.
    ///
    /// # Safety
    /// On a CPU with S's instruction set, inside a function compiled for it; `partial` and `rows` as [`scratch_len`] says, `sums` as the slots.
    #[inline(always)]
    pub(crate) unsafe fn rows<S: Simd<T>>(&self, c: usize, outer: [usize; 2], partial: &mut [T], rows: &mut [T]) {
        let [z, y, x] = self.correlation.axes.each_ref();
        let [_, width] = self.shape();
        let segments: usize = x.groups.iter().map(|group| group.segments.len()).sum();
        let stride = self.correlation.most_classes()[2] * width;
        let (taps, outer_taps) = (z.kernel * y.kernel * x.kernel, z.kernel * y.kernel);
        let (own, transposed) = partial.split_at_mut(partial.len() / 2);
        assert!(
            own.len() >= outer_taps * segments * stride && rows.len() >= x.kernel * taps * width,
            "assemble: scratch"
        );
        let sign_of = |other: usize| {
            let sign = z.pair(outer[0], other / y.kernel).sign;
            if sign != 0 { sign } else { y.pair(outer[1], other % y.kernel).sign }
        };
        for other in 0..outer_taps {
            let at = other * segments * stride..(other + 1) * segments * stride;
            let sign = sign_of(other);
            let zero_on_the_diagonal = sign == 0 && self.pair.kind() == Kind::Diagonal;
            if self.side(sign) == Side::Own {
                // SAFETY: the caller's contract.
                unsafe { self.partial_sums::<S>(c, outer, other, Side::Own, stride, &mut own[at.clone()]) };
            }
            if self.side(sign) == Side::Transposed || zero_on_the_diagonal {
                // SAFETY: the caller's contract.
                unsafe { self.partial_sums::<S>(c, outer, other, Side::Transposed, stride, &mut transposed[at]) };
            }
        }
        let (channel_step, tap_step) = match self.order {
            FeatureOrder::ChannelTaps => (taps, 1),
            FeatureOrder::TapsChannel => (1, width),
        };
        for q in 0..x.kernel {
            for t in 0..taps {
                let (other, r) = (t / x.kernel, t % x.kernel);
                let sign = sign_of(other);
                let sign = if sign != 0 { sign } else { x.pair(q, r).sign };
                let (pair, source) = match self.side(sign) {
                    Side::Own => (x.pair(q, r), &*own),
                    Side::Transposed => (x.pair(r, q), &*transposed),
                };
                let before: usize = x.groups[..pair.group].iter().map(|group| group.segments.len()).sum();
                let at = |segment: usize| (other * segments + before + segment) * stride + pair.class * width;
                let to = &mut rows[q * taps * width + t * tap_step..];
                for v in (0..width).step_by(S::LANES) {
                    let n = S::LANES.min(width - v);
                    let mut sum = [T::zero(); 16];
                    // SAFETY: n elements of each partial sum from v; lanes are at most 16.
                    unsafe {
                        let mut total = S::splat(T::zero());
                        for segment in pair.segments.clone() {
                            total = S::add(total, load::<T, S>(&source[at(segment) + v..], n));
                        }
                        S::store(sum.as_mut_ptr(), total);
                    }
                    let to = &mut to[v * channel_step..];
                    if channel_step == 1 {
                        to[..n].copy_from_slice(&sum[..n]);
                        continue;
                    }
                    let to = to.as_mut_ptr();
                    for (e, &value) in sum[..n].iter().enumerate() {
                        // SAFETY: entry (v + e, t) of row q, inside `rows` as its length was checked above.
                        unsafe { *to.add(e * channel_step) = value };
                    }
                }
            }
        }
    }

    /// Sums over the outer segments: `to[segment x][class x, c']`.
    ///
    /// # Safety
    /// As [`rows`](Assembly::rows).
    #[inline(always)]
    unsafe fn partial_sums<S: Simd<T>>(
        &self,
        c: usize,
        outer: [usize; 2],
        other: usize,
        side: Side,
        stride: usize,
        to: &mut [T],
    ) {
        let [z, y, x] = self.correlation.axes.each_ref();
        let [left, right] = self.widths();
        let other = [other / y.kernel, other % y.kernel];
        let (zp, yp) = match side {
            Side::Own => (z.pair(outer[0], other[0]), y.pair(outer[1], other[1])),
            Side::Transposed => (z.pair(other[0], outer[0]), y.pair(other[1], outer[1])),
        };
        let kind = self.pair.kind();
        let rows = y.groups[yp.group].segments.len();
        let mut slot = 0;
        for (g, group) in x.groups.iter().enumerate() {
            let columns = group.segments.len();
            let found = self.correlation.find(kind, [zp.group, yp.group, g]);
            for segment in 0..columns {
                let to = &mut to[slot * stride..(slot + 1) * stride];
                slot += 1;
                let Some(product) = found else { continue };
                let at = |sz: usize, sy: usize| {
                    let number = product.first + (sz * rows + sy) * columns + segment;
                    number * self.slots.len + yp.class * left * self.slots.row
                };
                let outer = || zp.segments.clone().flat_map(|sz| yp.segments.clone().map(move |sy| (sz, sy)));
                if side == Side::Own {
                    let length = group.count * right;
                    for v in (0..length).step_by(S::LANES) {
                        let n = S::LANES.min(length - v);
                        // SAFETY: row c of a slot, whose rows are whole vectors; n elements of `to` from v.
                        unsafe {
                            let mut total = S::splat(T::zero());
                            for (sz, sy) in outer() {
                                total = S::add(total, S::load(self.sums.add(at(sz, sy) + c * self.slots.row + v)));
                            }
                            store::<T, S>(&mut to[v..], total, n);
                        }
                    }
                } else {
                    for class in 0..group.count {
                        for (other, to) in to[class * left..(class + 1) * left].iter_mut().enumerate() {
                            let column = class * right + c;
                            let mut total = T::zero();
                            for (sz, sy) in outer() {
                                // SAFETY: row `other` and that column of a slot.
                                total = total + unsafe { *self.sums.add(at(sz, sy) + other * self.slots.row + column) };
                            }
                            *to = total;
                        }
                    }
                }
            }
        }
    }
}

/// The first `n <= LANES` elements.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn load<T: Float, S: Simd<T>>(from: &[T], n: usize) -> S::V {
    let from = &from[..n];
    // SAFETY: n elements.
    unsafe { if n == S::LANES { S::load(from.as_ptr()) } else { S::load_first(from.as_ptr(), n) } }
}

/// See [`load`].
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn store<T: Float, S: Simd<T>>(to: &mut [T], v: S::V, n: usize) {
    let to = &mut to[..n];
    // SAFETY: n elements.
    unsafe { if n == S::LANES { S::store(to.as_mut_ptr(), v) } else { S::store_first(to.as_mut_ptr(), v, n) } }
}
