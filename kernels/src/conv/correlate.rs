//! The products of the correlation form: for each class and each triple of segments, one tile of sums.
//!
//! ```text
//! acc[class y, channel c][class x, channel c']  +=  sum over images and positions of the segments
//!                                                    X_left[c, z, y - delta_y, x] X_right[c', z + delta_z, y, x + delta_x]
//! ```
//!
//! Rows are channels of the left tile (times the classes of the middle axis, gathered, where channels are few); columns are channels of
//! the right tile times the classes of the last axis, which lie next to each other in memory.

use super::axis::{Group, Segment};
use super::correlation::{Correlation, Kind};
use super::layout::{Layout, Steps};
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::microkernel::{Depths, kind};
use core::ops::Range;

/// Depths of a slab: the right panel of it stays in L1, as in the engine.
pub(crate) const SLAB: usize = 128;

/// Elements that a gather copies at once, at most.
const GATHER: usize = 8;

/// Where the sums of a pair of channel tiles are: one slot for each triple of segments of each product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    /// Elements from one row to the next.
    pub(crate) row: usize,
    /// Elements of a slot.
    pub(crate) len: usize,
    /// Elements in all.
    pub(crate) total: usize,
}

/// Two channel tiles: `[left, right]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TilePair {
    pub(crate) tiles: [usize; 2],
}

impl TilePair {
    /// The pairs `left >= right`, the costly ones first: `index` below `tiles (tiles + 1) / 2`.
    pub(crate) fn new(index: usize, tiles: usize) -> TilePair {
        let off = tiles * (tiles - 1) / 2;
        if index >= off {
            return TilePair { tiles: [index - off, index - off] };
        }
        let (mut left, mut rest) = (1, index);
        while rest >= left {
            rest -= left;
            left += 1;
        }
        TilePair { tiles: [left, rest] }
    }

    pub(crate) fn kind(&self) -> Kind {
        if self.tiles[0] == self.tiles[1] { Kind::Diagonal } else { Kind::Off }
    }
}

impl Slots {
    pub(crate) fn new(correlation: &Correlation, pair: TilePair, lanes: usize) -> Slots {
        let [left, right] = pair.tiles.map(|tile| correlation.tile_width(tile));
        let [_, y, x] = correlation.most_classes();
        if correlation.lanes {
            // Rows are classes, entries vectors.
            let (row, len) = (x * right, y * x * right);
            return Slots { row, len, total: len * correlation.products(pair.kind()).accumulators };
        }
        // A product that starts at a later class writes whole vectors from there.
        let row = (x * right).next_multiple_of(lanes) + if x > 1 { lanes } else { 0 };
        let len = y * left * row;
        Slots { row, len, total: len * correlation.products(pair.kind()).accumulators }
    }

    /// The slots that the largest pair of tiles needs.
    pub(crate) fn largest(correlation: &Correlation, lanes: usize) -> usize {
        let first = TilePair { tiles: [0, 0] };
        let second = TilePair { tiles: [correlation.tiles().min(2) - 1, 0] };
        let total = |pair| Slots::new(correlation, pair, lanes).total;
        total(first).max(total(second))
    }
}

/// Elements of a worker's gathered left operand.
pub(crate) fn gathered_len(correlation: &Correlation) -> usize {
    let rows = correlation.most_classes()[1] * correlation.width;
    if correlation.most_classes()[1] > 1 && !correlation.lanes { SLAB * rows + GATHER } else { 0 }
}

/// What a task reads.
pub(crate) struct Task<'a, T: Element> {
    pub(crate) correlation: &'a Correlation,
    pub(crate) layout: &'a Layout,
    pub(crate) kernels: &'static Kernels<T>,
    /// The packed images, readable a panel and [`GATHER`] elements past their end.
    pub(crate) packed: *const T,
}

// SAFETY: the packed images are read only while a task exists.
unsafe impl<T: Element> Sync for Task<'_, T> {}

/// One product over one triple of segments of one block.
struct Part<'a, T> {
    /// Where position 0 of class 0 of the middle axis lies for the left tile; each further class lies `class_step` before it.
    left: *const T,
    class_step: usize,
    /// Where position 0 of the first column lies for the right tile.
    right: *const T,
    widths: [usize; 2],
    /// Classes of the middle axis; more than one are gathered.
    rows: Range<usize>,
    columns: usize,
    to: *mut T,
    to_row: usize,
    positions: [&'a Range<usize>; 2],
    /// Rows of the images, cut to the chunk's.
    lines: Range<usize>,
    /// Whether nothing has been added to the slot yet: it need not be zero.
    fresh: bool,
}

impl<T: Element> Task<'_, T> {
    /// Puts one chunk's products of a pair of tiles into `sums`, which hold [`Slots`].
    ///
    /// # Safety
    /// `packed` holds the packed images of `layout`; `sums` is as long as the slots; `gathered` as [`gathered_len`] says.
    pub(crate) unsafe fn accumulate(&self, pair: TilePair, chunk: usize, sums: &mut [T], gathered: &mut [T]) {
        let (correlation, layout) = (self.correlation, self.layout);
        let slots = Slots::new(correlation, pair, self.kernels.lanes);
        assert!(sums.len() >= slots.total && gathered.len() >= gathered_len(correlation), "correlate: scratch");
        let widths = pair.tiles.map(|tile| correlation.tile_width(tile));
        let channels = pair.tiles.map(|tile| tile * correlation.width);
        let (images, rows) = layout.chunk(chunk);
        // The first block, if there is one, overwrites every slot, unless a chunk has not every row, or products not every column.
        let overwrites = layout.chunks() == 1 && !layout.columns && !images.is_empty();
        if !overwrites {
            sums[..slots.total].fill(T::zero());
        }
        for (number, block) in layout.blocks(images).enumerate() {
            let fresh = overwrites && number == 0;
            let steps = layout.steps(block.len());
            let start = |side: usize, groups: [&Group; 3]| {
                let phases = groups.map(|group| if side == 0 { group.left } else { group.right });
                let [_, ny, nx] = correlation.axes.each_ref().map(|axis| axis.phases.len());
                let phase = (phases[0] * ny + phases[1]) * nx + phases[2];
                self.packed.wrapping_add(layout.start(&block, (channels[side], widths[side]), phase))
            };
            for product in &correlation.products(pair.kind()).list {
                let groups @ [gz, gy, gx] = correlation.groups(product);
                let (left, right) = (start(0, groups), start(1, groups));
                let triples = segments(gz).flat_map(|z| segments(gy).map(move |y| (z, y)));
                let triples = triples.flat_map(|(z, y)| segments(gx).map(move |x| (z, y, x)));
                for (number, (z, y, x)) in triples.enumerate() {
                    let lines = y.positions.start.max(rows.start)..y.positions.end.min(rows.end);
                    let first = x.classes.start.max(product.first_class);
                    if lines.is_empty() || first >= x.classes.end {
                        continue;
                    }
                    let shift = |axis: usize, delta: isize| delta * steps.axes[axis] as isize;
                    let to_right = shift(0, gz.delta) + shift(2, gx.delta + first as isize);
                    let part = Part {
                        left: left.wrapping_offset(-shift(1, gy.delta) * widths[0] as isize),
                        class_step: steps.axes[1] * widths[0],
                        right: right.wrapping_offset(to_right * widths[1] as isize),
                        widths,
                        rows: y.classes.clone(),
                        columns: (x.classes.end - first) * widths[1],
                        to: sums[(product.first + number) * slots.len..].as_mut_ptr().wrapping_add(first * widths[1]),
                        to_row: slots.row,
                        positions: [&z.positions, &x.positions],
                        lines,
                        fresh,
                    };
                    // SAFETY: at every class and position of the segments both samples exist, so pointers stay inside the
                    // packed images; vectors reach at most a panel further. The slot has room for the rows and columns.
                    unsafe { self.part(&part, &steps, block.len(), gathered) };
                }
            }
        }
    }

    /// Cuts the positions of a part into slabs.
    ///
    /// # Safety
    /// As [`accumulate`](Task::accumulate) makes it.
    unsafe fn part(&self, part: &Part<'_, T>, steps: &Steps, images: usize, gathered: &mut [T]) {
        let [z, x] = part.positions;
        // Runs along x: of each image, or of all images at once.
        let (copies, length) = if self.layout.columns { (images, x.len()) } else { (1, x.len() * images) };
        let mut starts = [0; SLAB];
        let mut count = 0;
        let mut fresh = part.fresh;
        let pieces = length.div_ceil(SLAB);
        let whole = length.div_ceil(pieces);
        let most = (SLAB / whole).max(1);
        let lines = z.clone().flat_map(|z| part.lines.clone().map(move |y| z * steps.axes[0] + y * steps.axes[1]));
        let lines = lines.flat_map(|line| (0..copies).map(move |copy| line + copy * steps.image));
        for line in lines {
            let start = line + x.start * steps.axes[2];
            if pieces > 1 {
                for from in (0..length).step_by(whole) {
                    // SAFETY: the caller's contract.
                    unsafe { self.slab(part, &[start + from], whole.min(length - from), fresh, gathered) };
                    fresh = false;
                }
                continue;
            }
            starts[count] = start;
            count += 1;
            if count == most {
                // SAFETY: the caller's contract.
                unsafe { self.slab(part, &starts[..count], length, fresh, gathered) };
                (count, fresh) = (0, false);
            }
        }
        if count > 0 {
            // SAFETY: the caller's contract.
            unsafe { self.slab(part, &starts[..count], length, fresh, gathered) };
        }
    }

    /// Adds runs of `length` positions, or overwrites the slot with them if it is `fresh`.
    ///
    /// # Safety
    /// As [`part`](Task::part).
    unsafe fn slab(&self, part: &Part<'_, T>, starts: &[usize], length: usize, fresh: bool, gathered: &mut [T]) {
        if self.correlation.lanes {
            // SAFETY: the caller's contract.
            return unsafe { self.slab_of_lanes(part, starts, length, fresh) };
        }
        let kernels = self.kernels;
        let [left_width, right_width] = part.widths;
        let rows = part.rows.len() * left_width;
        let mut left_starts = [0; SLAB];
        let mut depths = Depths {
            left: starts.as_ptr(),
            right: starts.as_ptr(),
            runs: starts.len(),
            len: length,
            left_step: left_width,
            right_step: right_width,
            row_step: 1,
            next: part.right.cast(),
            next_rows: part.right.cast(),
        };
        let mut left = part.left.wrapping_sub(part.rows.start * part.class_step);
        if part.rows.len() > 1 {
            // SAFETY: the caller's contract.
            unsafe { self.gather(part, starts, length, gathered) };
            left_starts.iter_mut().zip(0..starts.len()).for_each(|(start, run)| *start = run * length);
            (depths.left, depths.left_step, left) = (left_starts.as_ptr(), rows, gathered.as_ptr());
        }
        let to = part.to.wrapping_add(part.rows.start * left_width * part.to_row);
        for j in (0..part.columns).step_by(kernels.nr) {
            let width = kernels.nr.min(part.columns - j);
            let mut i = 0;
            while i < rows {
                let step = kernels.rows_step(rows - i);
                let (l, r) = (left.wrapping_add(i), part.right.wrapping_add(j));
                // SAFETY: the kernels belong to an ISA this CPU has; the caller's contract for the operands and the slot.
                unsafe {
                    kernels.tile_of(kind::RUNS, step, width)(
                        &depths,
                        l,
                        r,
                        to.add(i * part.to_row + j),
                        part.to_row,
                        fresh,
                    )
                };
                i += step;
            }
        }
    }

    /// The same where a tile's channels are groups of their own.
    ///
    /// # Safety
    /// As [`part`](Task::part).
    unsafe fn slab_of_lanes(&self, part: &Part<'_, T>, starts: &[usize], length: usize, fresh: bool) {
        let (kernels, lanes) = (self.kernels, self.kernels.lanes);
        let starts_at = starts.as_ptr();
        let depths = Depths {
            left: starts_at,
            right: starts_at,
            runs: starts.len(),
            len: length,
            left_step: lanes,
            right_step: lanes,
            // A class of the left operand lies before the last one.
            row_step: -(part.class_step as isize),
            next: part.right.cast(),
            next_rows: part.right.cast(),
        };
        let columns = part.columns / lanes;
        let mut i = part.rows.start;
        while i < part.rows.end {
            let rows = kernels.lanes_step(part.rows.end - i);
            let mut j = 0;
            while j < columns {
                let width = kernels.lanes_step(columns - j);
                let (l, r) = (part.left.wrapping_sub(i * part.class_step), part.right.wrapping_add(j * lanes));
                // SAFETY: the kernels belong to an ISA this CPU has; the caller's contract for the operands and the slot.
                unsafe {
                    let to = part.to.add(i * part.to_row + j * lanes);
                    kernels.lanes_tile(rows, width)(&depths, l, r, to, part.to_row, fresh);
                }
                j += width;
            }
            i += rows;
        }
    }

    /// Puts the rows of all classes of a position next to each other.
    ///
    /// # Safety
    /// As [`part`](Task::part).
    unsafe fn gather(&self, part: &Part<'_, T>, starts: &[usize], length: usize, gathered: &mut [T]) {
        let (width, classes) = (part.widths[0], part.rows.len());
        let room = starts.len() * length * classes * width + GATHER;
        assert!(width <= GATHER && gathered.len() >= room, "gather: scratch");
        let mut to = gathered.as_mut_ptr();
        for &start in starts {
            let first = part.left.wrapping_add(start * width).wrapping_sub(part.rows.start * part.class_step);
            // SAFETY: the samples exist, and the packed images may be read this far past them; the buffer holds this far past its last
            // row.
            unsafe {
                match width {
                    1..=4 => copy_rows::<T, 4>(to, first, length, classes, width, part.class_step),
                    _ => copy_rows::<T, GATHER>(to, first, length, classes, width, part.class_step),
                }
                to = to.add(length * classes * width);
            }
        }
    }
}

/// `to[position][class][..width] <- from[position * width - class * class_step ..]`, `COPY >= width` elements at once: what one copy
/// writes too much the next overwrites.
///
/// # Safety
/// `from` is readable there for COPY elements, `to` writable for all rows and COPY more.
#[inline(always)]
unsafe fn copy_rows<T: Copy, const COPY: usize>(
    mut to: *mut T,
    from: *const T,
    length: usize,
    classes: usize,
    width: usize,
    class_step: usize,
) {
    for position in 0..length {
        let mut from = from.wrapping_add(position * width);
        for _ in 0..classes {
            // SAFETY: the caller's contract.
            unsafe {
                to.cast::<[T; COPY]>().write_unaligned(from.cast::<[T; COPY]>().read_unaligned());
                to = to.add(width);
            }
            from = from.wrapping_sub(class_step);
        }
    }
}

fn segments(group: &Group) -> core::slice::Iter<'_, Segment> {
    group.segments.iter()
}
