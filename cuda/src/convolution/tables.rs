//! What the device is told of the correlation form: its sums, the work items that compute them, and where each pair of taps finds its block.
//!
//! ```text
//! sum (a product over one triple of segments)      rows (class, channel) x columns (class, channel)
//!   tiles of SIDE x SIDE                           lower ones only, where the sum is symmetric
//!     chunks of positions                          each an item: one block of threads, one partial sum [SIDE][SIDE] in scratch
//! ```
//!
//! The chunks of a tile are neighbours in scratch, tiles of a sum follow on one another. All of it is a pure function of the geometry, the number
//! of images and the tile's side, so results do not depend on the device. The structs are those of `conv_covariance.cuh`.

use bytemuck::{Pod, Zeroable};
use foof_kernels::conv::Conv;
use foof_kernels::conv::classes::{Classes, Sum};

/// Items that a batch is cut into if it is large enough: small tiles run three at a time on each of an H200's 132 multiprocessors, twice over; a large tile is
/// worth two of them.
const ITEMS: u64 = 3 * 132 * 2;

/// Positions that are worth an item.
const LEAST_DEPTH: u64 = 256;

/// Positions of an item, at most: their numbers, and those of an image before the first, fit a `u32` with a bit to spare.
const MOST_DEPTH: u64 = 1 << 30;

/// Positions that starting a tile, storing its sum and reading it again cost.
const TILE_OVERHEAD: u64 = 48;

/// Division by a number that is known before: `n / divisor = (high half of n multiplier + n) >> shift` for `n < 2^31` (Granlund and
/// Montgomery 1994).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct Divisor {
    pub(crate) divisor: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// # Panics
    /// If the divisor is 0 or beyond `2^31`.
    pub(crate) fn new(divisor: usize) -> Divisor {
        assert!((1..=1 << 31).contains(&divisor), "a divisor of {divisor}");
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier = ((1u64 << 32) * ((1u64 << shift) - divisor as u64)) / divisor as u64 + 1;
        Divisor { divisor: divisor as u32, multiplier: multiplier as u32, shift }
    }

    /// `n / divisor`
    #[cfg(test)]
    pub(crate) fn divide(self, n: u32) -> u32 {
        let high = (u64::from(n) * u64::from(self.multiplier)) >> 32;
        ((high as u32) + n) >> self.shift
    }
}

/// A sum: which samples its positions read, and where its partial sums lie.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct SumEntry {
    /// Positions along z, y, x.
    pub(crate) lengths: [Divisor; 3],
    /// Left sample of the first position and row class, by axis; each further row class reads one sample before it along y.
    pub(crate) left: [i32; 3],
    /// Right sample of the first position and column class; each further column class reads one sample after it along x.
    pub(crate) right: [i32; 3],
    /// Numbers of the phases.
    pub(crate) phases: [u32; 2],
    /// First row and column, of all row and column classes by channels.
    pub(crate) origin: [u32; 2],
    /// Rows and columns.
    pub(crate) size: [u32; 2],
    /// The first partial sum.
    pub(crate) partial: u32,
    /// Partial sums of each tile.
    pub(crate) chunks: u32,
    /// Tiles in a row of tiles; 0 if only the lower tiles are there.
    pub(crate) tile_columns: u32,
}

/// What one block of threads computes: one tile of a sum over some positions.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct Item {
    /// The sum.
    pub(crate) sum: u32,
    /// Its tile: row and column.
    pub(crate) tile: [u32; 2],
    /// The image that the first position is in.
    pub(crate) image: u32,
    /// Positions of that image before the first.
    pub(crate) first: u32,
    /// Positions.
    pub(crate) count: u32,
    /// Where the partial sum goes.
    pub(crate) partial: u32,
}

/// Partial sums that become one, the first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct Fold {
    pub(crate) partial: u32,
    pub(crate) count: u32,
}

/// The block of two taps: the sums `first + z step_z + y step_y + x`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct PairEntry {
    pub(crate) first: u32,
    pub(crate) counts: [u32; 3],
    pub(crate) steps: [u32; 2],
    /// The first row of its row class, and the first column of its column class.
    pub(crate) origin: [u32; 2],
    /// 1 if the block is the sums' transpose.
    pub(crate) transposed: u32,
}

/// The correlation form of one group of channels, for a number of images.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tables {
    pub(crate) side: usize,
    /// Channels of a class: those of the group, and padding.
    pub(crate) width: usize,
    /// Phases of each axis that are read.
    pub(crate) phases: [Vec<usize>; 3],
    /// Samples of a packed phase.
    pub(crate) pitch: [usize; 3],
    pub(crate) sums: Vec<SumEntry>,
    /// The deep ones first.
    pub(crate) items: Vec<Item>,
    pub(crate) folds: Vec<Fold>,
    /// `[tap][tap']`
    pub(crate) pairs: Vec<PairEntry>,
    pub(crate) partials: usize,
    /// Additions into one entry beyond those of an item.
    pub(crate) additions: usize,
}

/// Tiles of a sum.
struct Tiles {
    rows: usize,
    columns: usize,
    symmetric: bool,
}

impl Tiles {
    fn new(sum: &Sum, width: usize, side: usize) -> Tiles {
        let [rows, columns] = [&sum.rows, &sum.columns].map(|classes| (classes.len() * width).div_ceil(side));
        Tiles { rows, columns, symmetric: sum.symmetric }
    }

    fn count(&self) -> usize {
        if self.symmetric { self.rows * (self.rows + 1) / 2 } else { self.rows * self.columns }
    }

    /// In the order of their partial sums; `device` code counts them likewise.
    fn list(&self) -> impl Iterator<Item = [usize; 2]> {
        let columns = |row: usize| if self.symmetric { row + 1 } else { self.columns };
        (0..self.rows).flat_map(move |row| (0..columns(row)).map(move |column| [row, column]))
    }
}

/// What the sums cost a batch of `images`, in multiply-adds of whole tiles.
pub(crate) fn cost(classes: &Classes, width: usize, side: usize, images: usize) -> u64 {
    let tile = |sum: &Sum| (sum.depth() as u64).saturating_mul(images as u64).saturating_add(TILE_OVERHEAD);
    let sums = classes.sums();
    let depths = sums.iter().map(|sum| tile(sum).saturating_mul(Tiles::new(sum, width, side).count() as u64));
    depths.fold(0, u64::saturating_add).saturating_mul((side * side) as u64)
}

/// Why there are no tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooLarge {
    pub(crate) what: &'static str,
    pub(crate) value: usize,
    pub(crate) most: usize,
}

impl Tables {
    /// For `images` images of a group's channels, padded to `width`; there are as many groups.
    pub(crate) fn new(
        classes: &Classes,
        conv: &Conv,
        width: usize,
        side: usize,
        images: usize,
    ) -> Result<Tables, TooLarge> {
        let sums = classes.sums();
        let fits = |what, value: usize, most: usize| {
            if value <= most { Ok(value as u32) } else { Err(TooLarge { what, value, most }) }
        };
        fits("images", images, i32::MAX as usize)?;
        for samples in classes.pitch() {
            fits("samples of an axis", samples, i32::MAX as usize / 2)?;
        }
        let tiles: Vec<Tiles> = sums.iter().map(|sum| Tiles::new(sum, width, side)).collect();
        let depths: Vec<u64> = sums.iter().map(|sum| sum.depth() as u64 * images as u64).collect();
        let work: u64 = depths.iter().zip(&tiles).map(|(depth, tiles)| depth * tiles.count() as u64).sum();
        // Fixed by the shape alone.
        let wanted = if side > 64 { ITEMS / 2 } else { ITEMS };
        let each = work.div_ceil(wanted.div_ceil(conv.groups() as u64)).clamp(LEAST_DEPTH, MOST_DEPTH);
        let (mut entries, mut items, mut folds, mut partials) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut most_chunks = 0;
        for (number, ((sum, tiles), &depth)) in sums.iter().zip(&tiles).zip(&depths).enumerate() {
            let image = fits("positions of an image", sum.depth(), i32::MAX as usize / 2)?;
            let chunks = depth.div_ceil(each).max(1);
            most_chunks = most_chunks.max(chunks as usize);
            entries.push(SumEntry {
                partial: fits("partial sums", partials, i32::MAX as usize)?,
                chunks: chunks as u32,
                ..entry(classes, sum, tiles, width)
            });
            for tile in tiles.list() {
                if chunks > 1 {
                    folds.push(Fold { partial: partials as u32, count: chunks as u32 });
                }
                for chunk in 0..chunks {
                    let [start, end] =
                        [chunk, chunk + 1].map(|k| (u128::from(depth) * u128::from(k) / u128::from(chunks)) as u64);
                    items.push(Item {
                        sum: number as u32,
                        tile: tile.map(|t| t as u32),
                        image: (start / u64::from(image)) as u32,
                        first: (start % u64::from(image)) as u32,
                        count: (end - start) as u32,
                        partial: fits("partial sums", partials, i32::MAX as usize)?,
                    });
                    partials += 1;
                }
            }
        }
        // The last blocks to start are short: they fill the device until the end.
        items.sort_by_key(|item| core::cmp::Reverse(item.count));
        let taps = conv.taps();
        let pairs = (0..taps * taps).map(|pair| pair_entry(classes, pair / taps, pair % taps, width)).collect();
        Ok(Tables {
            side,
            width,
            phases: classes.phases().map(<[usize]>::to_vec),
            pitch: classes.pitch(),
            sums: entries,
            items,
            folds,
            pairs,
            partials,
            additions: most_chunks + classes.longest_window(),
        })
    }

    /// Phases that are packed.
    pub(crate) fn phase_count(&self) -> usize {
        self.phases.iter().map(Vec::len).product()
    }

    /// Of each phase, its first sample along each axis, in the order that [`SumEntry::phases`] counts.
    pub(crate) fn first_samples(&self) -> Vec<i32> {
        let [z, y, x] = &self.phases;
        let triples = z.iter().flat_map(|&z| y.iter().flat_map(move |&y| x.iter().map(move |&x| [z, y, x])));
        triples.flatten().map(|sample| sample as i32).collect()
    }

    /// Whether the images are one phase: every sample.
    pub(crate) fn every_sample(&self, conv: &Conv) -> bool {
        conv.axes3().iter().all(|axis| axis.stride == 1)
    }

    /// Tiles of all sums.
    pub(crate) fn tiles(&self) -> usize {
        let folded: usize = self.folds.iter().map(|fold| fold.count as usize - 1).sum();
        self.partials - folded
    }

    /// Positions of the longest item.
    pub(crate) fn longest_item(&self) -> usize {
        self.items.first().map_or(0, |item| item.count as usize)
    }

    /// Multiply-adds, of whole tiles.
    pub(crate) fn multiply_adds(&self) -> u64 {
        let positions: u64 = self.items.iter().map(|item| u64::from(item.count)).sum();
        positions * (self.side * self.side) as u64
    }
}

fn entry(classes: &Classes, sum: &Sum, tiles: &Tiles, width: usize) -> SumEntry {
    let phases = classes.phases().map(<[usize]>::len);
    let phase = |side: [usize; 3]| ((side[0] * phases[1] + side[1]) * phases[2] + side[2]) as u32;
    let [z, y, x] = sum.positions.each_ref().map(|range| range.start as isize);
    let [shift_z, shift_y, shift_x] = sum.shift;
    let (row, column) = (sum.rows.start as isize, sum.columns.start as isize);
    let size = [&sum.rows, &sum.columns].map(|classes| (classes.len() * width) as u32);
    SumEntry {
        lengths: sum.positions.each_ref().map(|range| Divisor::new(range.len())),
        left: [z, y - shift_y - row, x].map(|at| at as i32),
        right: [z + shift_z, y, x + shift_x + column].map(|at| at as i32),
        phases: [phase(sum.left), phase(sum.right)],
        origin: [sum.rows.start, sum.columns.start].map(|class| (class * width) as u32),
        size,
        partial: 0,
        chunks: 0,
        tile_columns: if tiles.symmetric { 0 } else { tiles.columns as u32 },
    }
}

fn pair_entry(classes: &Classes, tap: usize, other: usize, width: usize) -> PairEntry {
    let pair = classes.pair(tap, other);
    PairEntry {
        first: pair.first as u32,
        counts: pair.counts.map(|count| count as u32),
        steps: [pair.steps[0] as u32, pair.steps[1] as u32],
        origin: [(pair.row * width) as u32, (pair.column * width) as u32],
        transposed: u32::from(pair.transposed),
    }
}
