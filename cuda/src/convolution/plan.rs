//! How a convolution's covariance is computed on a device: a pure function of the geometry, the number of images and the element type.

use super::tables::{Tables, TooLarge, cost};
use super::tile::{Math, Tile};
use crate::error::CudaError;
use crate::launch::MOST_BLOCKS;
use crate::stream::Precision;
use core::any::TypeId;
use core::fmt;
use foof_kernels::conv::Conv;
use foof_kernels::conv::classes::Classes;
use foof_kernels::covariance::Bias;
use foof_kernels::Input;

/// The correlation form must save at least this part of the multiply-adds: it reads and writes partial sums.
const LEAST_GAIN: f64 = 1.1;

/// Classes in a group that are tried: with few channels several fill a tile.
const GROUPS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16];

/// Blocks of the implicit unfold, if there is depth enough: two for each of 132 multiprocessors, twice over.
const UNFOLD_BLOCKS: usize = 2 * 132 * 2;

/// Outputs that are worth a chunk, and that one may have.
const CHUNK: core::ops::RangeInclusive<usize> = 256..=1 << 30;

/// A size that the kernels count in `int`, with a bit to spare.
const MOST: usize = 1 << 30;

/// The algorithm, for comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// Each entry from the definition, by one thread.
    Plain,
    /// Tiles whose patches are formed while they are loaded.
    Unfold,
    /// Products of shifted images, with at most so many classes along the last two axes in a sum.
    Correlation {
        /// The side of a tile: 64 or 128.
        side: usize,
        /// Classes along the middle axis.
        rows: usize,
        /// Classes along the last axis.
        columns: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Unfold(Chunks),
    Correlation(Box<Tables>),
}

/// How the outputs of a batch are cut for the implicit unfold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunks {
    /// Tiles of the triangle.
    pub(super) tiles: usize,
    pub(super) count: usize,
    /// Outputs of a chunk; the last may have fewer.
    pub(super) each: usize,
}

/// What is computed for a geometry and a number of images; printable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) conv: Conv,
    pub(super) images: usize,
    pub(super) form: Form,
    pub(super) tile: Tile,
    input: TypeId,
    gain: u64,
}

impl Plan {
    /// The plan with fewest multiply-adds, of whole tiles, for `images` images of elements `I`.
    ///
    /// # Errors
    /// [`CudaError::TooLarge`]: sizes beyond `2^30`.
    pub fn new<I: Input>(conv: &Conv, images: usize, precision: Precision) -> Result<Plan, CudaError> {
        let math = Math::of::<I>(precision);
        check::<I>(conv, images)?;
        let rung = Plan::choose::<I>(conv, images);
        Plan::with_rung::<I>(conv, images, math, rung)
    }

    /// One algorithm, whatever it costs: for comparisons.
    ///
    /// # Errors
    /// As [`Plan::new`].
    ///
    /// # Panics
    /// If the math has no tile of that side, or a group no class.
    pub fn with_rung<I: Input>(conv: &Conv, images: usize, math: Math, rung: Rung) -> Result<Plan, CudaError> {
        check::<I>(conv, images)?;
        let tile = |side| Tile::new::<I>(math, side);
        let (form, tile) = match rung {
            Rung::Plain => (Form::Plain, tile(64)),
            Rung::Unfold => (Form::Unfold(Chunks::new(conv, images, 64)), tile(64)),
            Rung::Correlation { side, rows, columns } => {
                let tables = Tables::new(&Classes::new(conv, rows, columns), conv.taps(), width::<I>(conv), side, images);
                let tables = tables.map_err(|TooLarge { what, value, most }| CudaError::TooLarge { what, value, most })?;
                (Form::Correlation(Box::new(tables)), tile(side))
            }
        };
        let gain = unfold_multiply_adds(conv).saturating_mul(images as u64);
        Ok(Plan { conv: *conv, images, form, tile, input: TypeId::of::<I>(), gain })
    }

    fn choose<I: Input>(conv: &Conv, images: usize) -> Rung {
        let width = width::<I>(conv);
        let [_, y, x] = conv.axes3();
        let mut best = (u64::MAX, Rung::Unfold);
        for &side in Math::sides::<I>() {
            let sizes = |taps: usize| {
                GROUPS.into_iter().filter(move |&n| n == 1 || n < 2 * taps && (n - 1) * width < 2 * side)
            };
            for rows in sizes(y.kernel) {
                for columns in sizes(x.kernel) {
                    let cost = cost(&Classes::new(conv, rows, columns), width, side, images);
                    // A larger tile reads half as much for each multiply-add.
                    let cost = if side > 64 { cost / 5 * 4 } else { cost };
                    if cost < best.0 {
                        best = (cost, Rung::Correlation { side, rows, columns });
                    }
                }
            }
        }
        let unfold = Chunks::new(conv, images, 64).multiply_adds(64, images * conv.positions());
        if unfold as f64 >= LEAST_GAIN * best.0 as f64 { best.1 } else { Rung::Unfold }
    }

    /// The convolution.
    pub fn conv(&self) -> &Conv {
        &self.conv
    }

    /// Images of a batch.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Whether it was made for elements `I`.
    pub fn suits<I: Input>(&self) -> bool {
        self.input == TypeId::of::<I>()
    }

    /// Multiply-adds of whole tiles, all groups and images.
    pub fn multiply_adds(&self) -> u64 {
        let rows = self.images * self.conv.positions();
        let group = match &self.form {
            Form::Plain => self.gain,
            Form::Unfold(chunks) => chunks.multiply_adds(self.tile.side, rows),
            Form::Correlation(tables) => tables.multiply_adds(),
        };
        group.saturating_mul(self.conv.groups() as u64)
    }

    /// Multiply-adds that a symmetric update of the unfolded images takes, all groups and images.
    pub fn unfold_multiply_adds(&self) -> u64 {
        self.gain.saturating_mul(self.conv.groups() as u64)
    }

    /// The longest chain of additions into one entry, the bias's row aside.
    pub fn depth(&self) -> usize {
        match &self.form {
            Form::Plain => self.images * self.conv.positions(),
            Form::Unfold(chunks) => chunks.each + chunks.count,
            Form::Correlation(tables) => tables.depth,
        }
    }

    /// The longest chain of additions into an entry of the bias's row, or into a mean patch: 32 lanes, their tree, and the images.
    pub fn window_depth(&self) -> usize {
        self.conv.positions().div_ceil(32) + 5 + self.images
    }
}

impl Chunks {
    fn new(conv: &Conv, images: usize, side: usize) -> Chunks {
        Chunks::of_rows(conv, images * conv.positions(), side)
    }

    /// Of the covariance of `rows` rows with the convolution's features.
    pub(super) fn of_rows(conv: &Conv, rows: usize, side: usize) -> Chunks {
        let side = conv.factor_size().div_ceil(side);
        let tiles = side * (side + 1) / 2;
        let wanted = UNFOLD_BLOCKS.div_ceil(tiles * conv.groups());
        let each = rows.div_ceil(wanted).clamp(*CHUNK.start(), *CHUNK.end());
        Chunks { tiles, each, count: rows.div_ceil(each).max(1) }
    }

    fn multiply_adds(&self, side: usize, rows: usize) -> u64 {
        (self.tiles * side * side) as u64 * rows as u64
    }
}

/// Channels of a group, padded to whole vectors of 16 bytes.
pub(super) fn width<I>(conv: &Conv) -> usize {
    (conv.in_channels() / conv.groups()).next_multiple_of(16 / size_of::<I>())
}

/// Of one group and image: the lower triangle, at each output.
fn unfold_multiply_adds(conv: &Conv) -> u64 {
    let features = conv.features() as u64;
    features * (features + 1) / 2 * conv.positions() as u64
}

fn check<I>(conv: &Conv, images: usize) -> Result<(), CudaError> {
    let fits = |what, value: usize| {
        if value < MOST { Ok(()) } else { Err(CudaError::TooLarge { what, value, most: MOST - 1 }) }
    };
    fits("images", images)?;
    let (groups, most) = (conv.groups(), MOST_BLOCKS as usize);
    if groups > most {
        return Err(CudaError::TooLarge { what: "groups", value: groups, most });
    }
    fits("factor_size", conv.factor_size())?;
    fits("outputs of an image", conv.positions())?;
    for axis in conv.axes3() {
        let [low, high] = axis.padding;
        fits("padded size of an axis", axis.size + low + high + axis.stride)?;
    }
    // Offsets inside an image are `int`.
    fits("samples of an image", conv.axes3().iter().map(|axis| axis.size).product::<usize>() * width::<I>(conv))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.form {
            Form::Plain => "plain",
            Form::Unfold(_) => "implicit unfold",
            Form::Correlation(_) => "correlation",
        };
        let gain = self.unfold_multiply_adds() as f64 / self.multiply_adds() as f64;
        let (side, math) = (self.tile.side, self.tile.math);
        write!(f, "{name}, {math} tiles of {side}: {:.3e} multiply-adds, {gain:.2}x fewer than unfolding", self.multiply_adds() as f64)?;
        match &self.form {
            Form::Plain => {}
            Form::Unfold(chunks) => write!(f, "; {} tiles in {} chunks", chunks.tiles, chunks.count)?,
            Form::Correlation(tables) => {
                let (sums, items, partials) = (tables.sums.len(), tables.items.len(), tables.partials);
                write!(f, "; {sums} sums, {items} items, {partials} partial sums")?;
            }
        }
        if self.conv.bias() == Bias::With {
            write!(f, ", bias")?;
        }
        if self.conv.groups() > 1 {
            write!(f, ", {} groups", self.conv.groups())?;
        }
        Ok(())
    }
}
