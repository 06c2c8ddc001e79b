//! The factor of one group of channels, written pair of tiles by pair of tiles.

use super::assemble::{Assembly, STRIP, Scratch};
use super::correlate::{Slots, TilePair};
use super::correlation::{Correlation, Kind};
use super::covariance::ConvSpec;
use super::geometry::{Conv, FeatureOrder};
use crate::element::Element;
use crate::engine::epilogue::{Shared, Triangle, mirror};
use crate::engine::kernels::Kernels;
use crate::view::MatMut;
use core::ops::Range;

/// The factor that tasks write.
pub(super) struct Output<'a, T: Element> {
    shared: Shared<'a, T>,
    conv: &'a Conv,
    correlation: &'a Correlation,
    spec: &'a ConvSpec<T>,
    kernels: &'static Kernels<T>,
}

impl<'a, T: Element> Output<'a, T> {
    pub(super) fn new(
        mut out: MatMut<'a, T>,
        conv: &'a Conv,
        correlation: &'a Correlation,
        spec: &'a ConvSpec<T>,
        kernels: &'static Kernels<T>,
    ) -> Self {
        Output { shared: Shared::new(&mut out), conv, correlation, spec, kernels }
    }

    /// Writes the entries between channels `channels` of the left tile and all of the right one.
    ///
    /// # Safety
    /// The caller alone has these entries and their mirror images; `sums` hold the pair's slots; `scratch` as the assembly asks.
    pub(super) unsafe fn write(
        &self,
        pair: TilePair,
        slots: &Slots,
        sums: &[T],
        channels: Range<usize>,
        scratch: &mut [T],
    ) {
        let (correlation, order) = (self.correlation, self.conv.order());
        let mut assembly = Assembly { correlation, pair, slots: *slots, sums: sums.as_ptr(), order, transposed: false };
        // SAFETY: the caller's contract.
        unsafe { self.write_side(&assembly, channels.clone(), 0..assembly.shape()[1], scratch) };
        if order == FeatureOrder::TapsChannel && pair.kind() == Kind::Off {
            // Below the diagonal lie also the entries of an earlier channel at a later tap.
            assembly.transposed = true;
            // SAFETY: the caller's contract.
            unsafe { self.write_side(&assembly, 0..assembly.shape()[0], channels, scratch) };
        }
    }

    /// Rows of channels `rows`, in columns of channels `columns`, both within their tiles.
    ///
    /// # Safety
    /// As [`write`](Output::write).
    unsafe fn write_side(
        &self,
        assembly: &Assembly<'_, T>,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut [T],
    ) {
        let conv = self.conv;
        let (taps, [kz, ky, kx]) = (conv.taps(), conv.axes3().map(|axis| axis.kernel));
        let [_, width] = assembly.shape();
        let [left, right] = assembly.pair.tiles.map(|tile| tile * self.correlation.width);
        let (row_channel, column_channel) = if assembly.transposed { (right, left) } else { (left, right) };
        let diagonal = assembly.pair.kind() == Kind::Diagonal;
        let lens = Scratch::new(self.correlation, self.kernels.lanes);
        for (strip, outer) in rows.clone().step_by(STRIP).flat_map(|c| (0..kz * ky).map(move |outer| (c, outer))) {
            let [partial, blocks, square, buffer] = lens.split(scratch);
            let channels = (strip, STRIP.min(rows.end - strip));
            let outer_taps = [outer / ky, outer % ky];
            let memory = [partial, blocks, square, &mut *buffer];
            // SAFETY: the kernels belong to an ISA this CPU has; the caller's contract.
            unsafe { (self.kernels.assemble)(assembly, channels, outer_taps, &lens, memory) };
            for (q, lines) in buffer.chunks_exact(STRIP * taps * width).enumerate().take(kx) {
                let tap = outer * kx + q;
                for (line, c) in lines.chunks_exact(taps * width).zip(strip..strip + channels.1) {
                    let row = conv.feature(row_channel + c, tap);
                    // SAFETY: entries on or below the diagonal, of this task's channels.
                    let write = |column: usize, line: &[T]| unsafe {
                        self.shared.blend((row, column), line, self.spec.blend, self.kernels)
                    };
                    match assembly.order {
                        FeatureOrder::ChannelTaps => {
                            let length = if diagonal { c * taps + tap + 1 } else { width * taps };
                            write(column_channel * taps, &line[..length]);
                        }
                        FeatureOrder::TapsChannel => {
                            for other in 0..taps {
                                let end = match other.cmp(&tap) {
                                    core::cmp::Ordering::Less => columns.end,
                                    core::cmp::Ordering::Equal if diagonal => columns.end.min(c + 1),
                                    core::cmp::Ordering::Equal if !assembly.transposed => columns.end,
                                    _ => continue,
                                };
                                if columns.start < end {
                                    let at = other * width;
                                    let column = conv.feature(column_channel + columns.start, other);
                                    write(column, &line[at + columns.start..at + end]);
                                }
                            }
                        }
                    }
                }
            }
        }
        if self.spec.triangle != Triangle::Full {
            return;
        }
        // SAFETY (both): the entries and their mirror images are the caller's.
        match assembly.order {
            FeatureOrder::ChannelTaps => {
                let block = |first: usize, channels: &Range<usize>| {
                    (first + channels.start) * taps..(first + channels.end) * taps
                };
                let (rows, columns) = (block(row_channel, &rows), block(column_channel, &columns));
                // SAFETY: as above.
                unsafe { mirror(&self.shared, rows, columns, self.kernels) };
            }
            FeatureOrder::TapsChannel => {
                let block = |tap: usize, first: usize, channels: &Range<usize>| {
                    let at = conv.feature(first, tap);
                    at + channels.start..at + channels.end
                };
                for (t, other) in (0..taps).flat_map(|t| (0..=t).map(move |other| (t, other))) {
                    if t == other && assembly.transposed {
                        continue;
                    }
                    let (rows, columns) = (block(t, row_channel, &rows), block(other, column_channel, &columns));
                    // SAFETY: as above.
                    unsafe { mirror(&self.shared, rows, columns, self.kernels) };
                }
            }
        }
    }
}
