//! From sums over segments to the factor: rows of the output, for a strip of channels at a time.
//!
//! The block of taps `(t, t')` is the sum over the segments of their window. Sums over the outer axes are shared by all taps of the last
//! axis, so they are taken first:
//!
//! ```text
//! partial[t' outer][segment x][c][class x, c']  =  sum over segments (z, y) of the window of the outer taps
//! block[t'][c][c']                              =  sum over segments x of the window of the last taps of partial
//! row (c, t)[c', t']                            =  block, a strip's channels by taps transposed in registers
//! ```

use super::axis::Pair;
use super::correlate::{Slots, TilePair};
use super::correlation::{Correlation, Kind};
use super::geometry::FeatureOrder;
use crate::engine::rows::transpose;
use crate::simd::{Simd, squares};
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

/// See [`Assembly::rows`].
pub(crate) type AssembleFn<T> = unsafe fn(&Assembly<'_, T>, (usize, usize), [usize; 2], &Scratch, [&mut [T]; 4]);

/// Which sums hold a pair of taps: those of its own class, or of the transposed one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Own,
    Transposed,
}

/// Channels whose rows are formed at once: what is looked up for a pair of taps serves all of them, their sums are long runs, and
/// transposed ones whole squares.
pub(crate) const STRIP: usize = 16;

/// Elements of the scratch of [`Assembly::rows`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scratch {
    /// Elements of a partial sum: a strip of rows of all columns.
    partial: usize,
    /// Segments of the last axis, over its groups.
    segments: usize,
    /// From one channel's row of a block to the next.
    block_row: usize,
    /// Blocks: one for each tap, and padding to whole squares.
    blocks: usize,
    /// The rows of all taps of the last axis and channels of a strip, and a vector.
    rows: usize,
    outer: usize,
}

impl Scratch {
    pub(crate) fn new(correlation: &Correlation, lanes: usize) -> Scratch {
        let [z, y, x] = correlation.axes.each_ref();
        let segments = x.groups.iter().map(|group| group.segments.len()).sum();
        let (outer, width) = (z.kernel * y.kernel, correlation.width);
        let classes = correlation.most_classes()[2];
        let taps = outer * x.kernel;
        Scratch {
            // Rows of the slots, or transposed ones, as wide as these.
            partial: STRIP * ((classes * width).next_multiple_of(lanes) + lanes),
            segments,
            block_row: width.next_multiple_of(lanes),
            blocks: taps.next_multiple_of(lanes),
            rows: STRIP * x.kernel * taps * width + lanes,
            outer,
        }
    }

    fn lens(&self) -> [usize; 4] {
        let partials = self.outer * self.segments * self.partial;
        [2 * partials, STRIP * self.block_row * self.blocks, STRIP * (self.block_row + STRIP), self.rows]
    }

    pub(crate) fn total(&self) -> usize {
        self.lens().iter().sum()
    }

    /// Partial sums of both sides, blocks, a square to be transposed, rows.
    pub(crate) fn split<'a, T>(&self, mut scratch: &'a mut [T]) -> [&'a mut [T]; 4] {
        self.lens().map(|len| {
            let (part, rest) = core::mem::take(&mut scratch).split_at_mut(len);
            scratch = rest;
            part
        })
    }
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

    /// For channels `first..first + count` (at most [`STRIP`]) and outer taps `[z, y]`, the rows of all taps of the last axis: row
    /// `(c, q)` at `(q STRIP + c) taps width`, its entry `(c', t')` at `c' taps + t'` (order channel, taps) or `t' width + c'`.
    ///
    /// # Safety
    /// On a CPU with S's instruction set, inside a function compiled for it; `memory` as `scratch` splits it, `sums` as the slots.
    #[inline(always)]
    pub(crate) unsafe fn rows<S: Simd<T>>(
        &self,
        (first, count): (usize, usize),
        outer: [usize; 2],
        scratch: &Scratch,
        memory: [&mut [T]; 4],
    ) {
        let [z, y, x] = self.correlation.axes.each_ref();
        let [_, width] = self.shape();
        let (taps, outer_taps) = (z.kernel * y.kernel * x.kernel, z.kernel * y.kernel);
        let [partial, blocks, square, rows] = memory;
        let lens = [partial.len(), blocks.len(), square.len(), rows.len()];
        assert!(count <= STRIP && S::LANES <= STRIP && lens == scratch.lens(), "assemble: scratch");
        let (own, transposed) = partial.split_at_mut(partial.len() / 2);
        let sign_of = |other: usize| {
            let sign = z.pair(outer[0], other / y.kernel).sign;
            if sign != 0 { sign } else { y.pair(outer[1], other % y.kernel).sign }
        };
        let partial_row = if self.transposed || self.pair.kind() == Kind::Diagonal {
            // Both sides have the rows of the own one on the diagonal.
            (self.correlation.most_classes()[2] * width).next_multiple_of(S::LANES)
                + if self.correlation.most_classes()[2] > 1 { S::LANES } else { 0 }
        } else {
            self.slots.row
        };
        for other in 0..outer_taps {
            let at = other * scratch.segments * scratch.partial;
            let sign = sign_of(other);
            let zero_on_the_diagonal = sign == 0 && self.pair.kind() == Kind::Diagonal;
            let job = Partial { channels: (first, count), outer, other, step: scratch.partial, row: partial_row };
            // SAFETY (both): the caller's contract.
            if self.side(sign) == Side::Own {
                // SAFETY: as above.
                unsafe { self.partial_sums::<S>(&job, own[at..].as_mut_ptr()) };
            }
            if self.side(sign) == Side::Transposed || zero_on_the_diagonal {
                // SAFETY: as above.
                unsafe { self.transposed_sums::<S>(&job, transposed[at..].as_mut_ptr(), square.as_mut_ptr()) };
            }
        }
        let block_step = STRIP * scratch.block_row;
        for q in 0..x.kernel {
            for t in 0..taps {
                let (other, r) = (t / x.kernel, t % x.kernel);
                let sign = sign_of(other);
                let sign = if sign != 0 { sign } else { x.pair(q, r).sign };
                let (pair, source) = match self.side(sign) {
                    Side::Own => (x.pair(q, r), own.as_ptr()),
                    Side::Transposed => (x.pair(r, q), transposed.as_ptr()),
                };
                let segment = other * scratch.segments + x.groups_before(pair.group) + pair.segments.start;
                let from = source.wrapping_add(segment * scratch.partial + pair.class * width);
                let to = blocks.as_mut_ptr().wrapping_add(t * block_step);
                let counts = [1, pair.segments.len()];
                // SAFETY: partial sums of the window's segments follow on one another; a block holds a strip's rows.
                unsafe {
                    if partial_row == scratch.block_row {
                        add_pieces::<T, S>(to, from, [0, scratch.partial], counts, count * partial_row);
                    } else {
                        for c in 0..count {
                            let (to, from) = (to.add(c * scratch.block_row), from.add(c * partial_row));
                            add_pieces::<T, S>(to, from, [0, scratch.partial], counts, width);
                        }
                    }
                }
            }
            // A row's last vector reaches a few elements into the next one: rows are written in order.
            for c in 0..count {
                let row = rows[(q * STRIP + c) * taps * width..].as_mut_ptr();
                let from = blocks.as_ptr().wrapping_add(c * scratch.block_row);
                // SAFETY: blocks are padded to whole squares; a row and a vector after it lie inside `rows`.
                unsafe {
                    match self.order {
                        FeatureOrder::ChannelTaps => interleave::<T, S>(row, from, block_step, taps, width),
                        FeatureOrder::TapsChannel => {
                            for t in 0..taps {
                                core::ptr::copy_nonoverlapping(from.add(t * block_step), row.add(t * width), width);
                            }
                        }
                    }
                }
            }
        }
    }

    /// `to[segment x][c][class x, c'] <- sum over the outer segments`, for rows of the left tile.
    ///
    /// # Safety
    /// As [`rows`](Assembly::rows).
    #[inline(always)]
    unsafe fn partial_sums<S: Simd<T>>(&self, job: &Partial, to: *mut T) {
        let [z, y, x] = self.correlation.axes.each_ref();
        let other = [job.other / y.kernel, job.other % y.kernel];
        let (zp, yp) = (z.pair(job.outer[0], other[0]), y.pair(job.outer[1], other[1]));
        let (first, count) = job.channels;
        let mut segment = 0;
        for (g, group) in x.groups.iter().enumerate() {
            let columns = group.segments.len();
            if let Some(window) = self.window([zp, yp], g, columns) {
                for column in 0..columns {
                    // SAFETY: slots of the window, `count` rows of them; the partial sum has rows as wide as theirs.
                    unsafe {
                        let from = self.sums.add(window.start + column * self.slots.len + first * self.slots.row);
                        let to = to.add((segment + column) * job.step);
                        add_pieces::<T, S>(to, from, window.steps, window.counts, count * self.slots.row);
                    }
                }
            }
            segment += columns;
        }
    }

    /// The same for rows of the right tile: `to[segment x][c][class x, c']`, `c'` of the left one, from slots `[c'][class x, c]`.
    ///
    /// # Safety
    /// As [`rows`](Assembly::rows).
    #[inline(always)]
    unsafe fn transposed_sums<S: Simd<T>>(&self, job: &Partial, to: *mut T, square: *mut T) {
        let [z, y, x] = self.correlation.axes.each_ref();
        let [left, right] = self.widths();
        let other = [job.other / y.kernel, job.other % y.kernel];
        let (zp, yp) = (z.pair(other[0], job.outer[0]), y.pair(other[1], job.outer[1]));
        let (first, count) = job.channels;
        let mut segment = 0;
        for (g, group) in x.groups.iter().enumerate() {
            let columns = group.segments.len();
            if let Some(window) = self.window([zp, yp], g, columns) {
                for (column, class) in
                    (0..columns).flat_map(|column| (0..group.count).map(move |class| (column, class)))
                {
                    let start = window.start + column * self.slots.len + class * right + first;
                    let to = to.wrapping_add((segment + column) * job.step + class * left);
                    // SAFETY: `left` rows of the window's slots, of which `count` elements are needed; the square holds them, and
                    // its transposed one fits `count` rows of the partial sum.
                    unsafe {
                        for c in 0..left {
                            let from = self.sums.add(start + c * self.slots.row);
                            add_pieces::<T, S>(square.add(c * STRIP), from, window.steps, window.counts, count);
                        }
                        transpose::<T, S>(to, job.row, square, STRIP as isize, left, count);
                    }
                }
            }
            segment += columns;
        }
    }

    /// The slots of the window of outer taps: the first one of the group `g` of the last axis, and those to be added.
    fn window(&self, [z, y]: [&Pair; 2], g: usize, columns: usize) -> Option<Window> {
        let product = self.correlation.find(self.pair.kind(), [z.group, y.group, g])?;
        let [left, _] = self.widths();
        let rows = self.correlation.axes[1].groups[y.group].segments.len();
        let number = product.first + (z.segments.start * rows + y.segments.start) * columns;
        let Slots { row, len, .. } = self.slots;
        Some(Window {
            start: number * len + y.class * left * row,
            steps: [rows * columns * len, columns * len],
            counts: [z.segments.len(), y.segments.len()],
        })
    }
}

/// What partial sums are taken of, and where they go: segments `step` apart, rows `row`.
struct Partial {
    channels: (usize, usize),
    outer: [usize; 2],
    other: usize,
    step: usize,
    row: usize,
}

/// Slots to be added.
struct Window {
    start: usize,
    steps: [usize; 2],
    counts: [usize; 2],
}

/// `to[..n] <- sum of counts[0] times counts[1] pieces, steps apart`, piece by piece.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it; both sides valid for `n` elements.
#[inline(always)]
unsafe fn add_pieces<T: Float, S: Simd<T>>(
    to: *mut T,
    from: *const T,
    steps: [usize; 2],
    counts: [usize; 2],
    n: usize,
) {
    let whole = n / S::LANES * S::LANES;
    // SAFETY: whole vectors while they fit, then a masked one of n - whole < LANES elements.
    unsafe {
        if counts[0] * counts[1] == 0 {
            (0..n).for_each(|i| *to.add(i) = T::zero());
        }
        for i in 0..counts[0] {
            for j in 0..counts[1] {
                let from = from.add(i * steps[0] + j * steps[1]);
                if i + j == 0 {
                    for v in (0..whole).step_by(S::LANES) {
                        S::store(to.add(v), S::load(from.add(v)));
                    }
                    if whole < n {
                        S::store_first(to.add(whole), S::load_first(from.add(whole), n - whole), n - whole);
                    }
                    continue;
                }
                for v in (0..whole).step_by(S::LANES) {
                    S::store(to.add(v), S::add(S::load(to.add(v)), S::load(from.add(v))));
                }
                if whole < n {
                    let (to, rest) = (to.add(whole), n - whole);
                    S::store_first(to, S::add(S::load_first(to, rest), S::load_first(from.add(whole), rest)), rest);
                }
            }
        }
    }
}

/// `row[c taps + t] <- by_tap[t tap_step + c]` for `t < taps`, `c < width`: squares whose columns are stored whole, so that what
/// is written too much is written again.
///
/// # Safety
/// As [`add_pieces`]; `by_tap` readable for whole squares, `row` writable for `taps width` elements and a vector.
#[inline(always)]
unsafe fn interleave<T: Float, S: Simd<T>>(row: *mut T, by_tap: *const T, tap_step: usize, taps: usize, width: usize) {
    // The columns of a last square that is not whole reach into the first taps of the next channels: it goes first, and what it writes
    // too much is written again, by later squares or, if it is the only one, by its own later columns.
    let squares = taps.div_ceil(S::LANES);
    for square in 0..squares {
        let t = (squares - 1 - square) * S::LANES;
        for c in (0..width).step_by(S::LANES) {
            // SAFETY: a square of by_tap; the row as the contract says.
            unsafe {
                let from = by_tap.add(t * tap_step + c);
                if c + S::LANES <= width {
                    squares::transpose::<T, S>(row.add(c * taps + t), taps, from, tap_step as isize);
                    continue;
                }
                for e in 0..width - c {
                    for k in 0..S::LANES.min(taps - t) {
                        *row.add((c + e) * taps + t + k) = *from.add(k * tap_step + e);
                    }
                }
            }
        }
    }
}
