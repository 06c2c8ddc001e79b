//! How a convolution's covariance is computed on a device: a pure function of the geometry, the number of images and the element type.

use super::tables::{Tables, TooLarge, cost};
use crate::error::CudaError;
use crate::launch::MOST_BLOCKS;
use crate::tile::{Cut, Kind, Math, Tile};
use core::fmt;
use foof_kernels::Input;
use foof_kernels::conv::Conv;
use foof_kernels::conv::classes::Classes;
use foof_kernels::conv::plan::is_pixels;
use foof_kernels::covariance::Bias;

/// The correlation form must save at least this part of the multiply-adds: it reads and writes partial sums.
const LEAST_GAIN: f64 = 1.1;

/// Classes in a group that are tried: with few channels several fill a tile.
const GROUPS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16];

/// A size that the kernels count in `int`, with a bit to spare.
const MOST: usize = 1 << 30;

/// The algorithm, for comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// Each entry from the definition, by one thread.
    Plain,
    /// The covariance of pixels, for convolutions with one tap that is read at every sample.
    Pixels,
    /// Tiles whose patches are formed while they are loaded.
    Unfold,
    /// Products of shifted images, with at most so many classes along the last two axes in a sum.
    Correlation {
        /// The tile.
        tile: Tile,
        /// Classes along the middle axis.
        rows: usize,
        /// Classes along the last axis.
        columns: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Pixels(Cut),
    Unfold(Cut),
    Correlation(Box<Tables>),
}

/// What is computed for a geometry and a number of images, or fewer: then the same is left out at the end, so that the result has the bits that images of zeros in their
/// place would give. Printable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) conv: Conv,
    pub(super) images: usize,
    pub(super) form: Form,
    pub(super) tile: Tile,
    pub(super) math: Math,
    pub(super) kind: Kind,
    gain: u64,
}

impl Plan {
    /// The plan with fewest multiply-adds, of whole tiles, for `images` images of elements `I`, or fewer.
    ///
    /// # Errors
    /// [`CudaError::TooLarge`]: sizes beyond `2^30`.
    pub fn new<I: Input>(conv: &Conv, images: usize, math: Math) -> Result<Plan, CudaError> {
        check::<I>(conv, images)?;
        Plan::with_rung::<I>(conv, images, math, Plan::choose::<I>(conv, images))
    }

    /// One algorithm, whatever it costs: for comparisons.
    ///
    /// # Errors
    /// As [`Plan::new`].
    ///
    /// # Panics
    /// If there is no such math or tile for `I`, or a group has no class.
    pub fn with_rung<I: Input>(conv: &Conv, images: usize, math: Math, rung: Rung) -> Result<Plan, CudaError> {
        check::<I>(conv, images)?;
        let kind = Kind::of::<I>();
        assert!(Math::all(kind).contains(&math), "plan: no {math} of {kind:?}");
        let (form, tile) = match rung {
            Rung::Plain => (Form::Plain, Tile::SMALL),
            Rung::Pixels => {
                assert!(is_pixels(conv), "plan: {conv:?} has more than one tap, a stride or padding");
                let cut = Cut::new(kind, conv.factor_size(), images * conv.positions());
                (Form::Pixels(cut), cut.tile)
            }
            Rung::Unfold => (Form::Unfold(cut(conv, images * conv.positions())), Tile::SMALL),
            Rung::Correlation { tile, rows, columns } => {
                assert!(Tile::all(kind).contains(&tile), "plan: no {tile:?} of {kind:?}");
                let (classes, width) = (Classes::new(conv, rows, columns), width::<I>(conv));
                let tables = Tables::new(&classes, conv, width, tile.side(), images);
                let too_large = |TooLarge { what, value, most }| CudaError::TooLarge { what, value, most };
                (Form::Correlation(Box::new(tables.map_err(too_large)?)), tile)
            }
        };
        let gain = unfold_multiply_adds(conv).saturating_mul(images as u64);
        Ok(Plan { conv: *conv, images, form, tile, math, kind, gain })
    }

    fn choose<I: Input>(conv: &Conv, images: usize) -> Rung {
        if is_pixels(conv) {
            return Rung::Pixels;
        }
        let width = width::<I>(conv);
        let [_, y, x] = conv.axes3();
        let mut best = (u64::MAX, Rung::Unfold);
        for &tile in Tile::all(Kind::of::<I>()) {
            let side = tile.side();
            let sizes =
                |taps: usize| GROUPS.into_iter().filter(move |&n| n == 1 || n < 2 * taps && (n - 1) * width < 2 * side);
            for rows in sizes(y.kernel) {
                for columns in sizes(x.kernel) {
                    let cost = cost(&Classes::new(conv, rows, columns), width, side, images);
                    // A larger tile reads half as much for each multiply-add.
                    let cost = if tile == Tile::LARGE { cost / 5 * 4 } else { cost };
                    if cost < best.0 {
                        best = (cost, Rung::Correlation { tile, rows, columns });
                    }
                }
            }
        }
        let rows = images * conv.positions();
        let unfold = multiply_adds(&cut(conv, rows), rows);
        if unfold as f64 >= LEAST_GAIN * best.0 as f64 { best.1 } else { Rung::Unfold }
    }

    /// The convolution.
    pub fn conv(&self) -> &Conv {
        &self.conv
    }

    /// Images of the largest batch.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Whether it was made for elements `I`.
    pub fn suits<I: Input>(&self) -> bool {
        self.kind == Kind::of::<I>()
    }

    /// Multiply-adds of whole tiles, all groups, of the largest batch.
    pub fn multiply_adds(&self) -> u64 {
        let rows = self.images * self.conv.positions();
        let group = match &self.form {
            Form::Plain => self.gain,
            Form::Pixels(cut) | Form::Unfold(cut) => multiply_adds(cut, rows),
            Form::Correlation(tables) => tables.multiply_adds(),
        };
        group.saturating_mul(self.conv.groups() as u64)
    }

    /// Multiply-adds that a symmetric update of the unfolded images takes, all groups and images.
    pub fn unfold_multiply_adds(&self) -> u64 {
        self.gain.saturating_mul(self.conv.groups() as u64)
    }

    /// Roundings that bound the error of an entry of the largest batch's, the bias's row aside: see [`Math::depth`].
    pub fn depth(&self) -> usize {
        let rows = self.images * self.conv.positions();
        match &self.form {
            Form::Plain => rows,
            Form::Unfold(cut) => cut.depth(self.math, self.kind, rows),
            // Pixels that do not follow on one another are unfolded.
            Form::Pixels(pixels) => {
                let depth = |cut: &Cut| cut.depth(self.math, self.kind, rows);
                depth(pixels).max(depth(&cut(&self.conv, rows)))
            }
            Form::Correlation(tables) => {
                // An item's chain, then the chunks of a tile and the sums of a window.
                self.math.depth(self.kind, tables.longest_item()) + tables.additions
            }
        }
    }

    /// The same under `Sharing::Reduce`, of the products of mean patches.
    pub fn reduced_depth(&self) -> usize {
        let kind = self.kind.widened();
        cut(&self.conv, self.images).depth(reduced_math(self.math, kind), kind, self.images)
    }

    /// The most parts that the depth of a tile is cut into.
    pub fn chunks(&self) -> usize {
        match &self.form {
            Form::Plain => 1,
            Form::Pixels(cut) | Form::Unfold(cut) => cut.chunks,
            Form::Correlation(tables) => tables.sums.iter().map(|sum| sum.chunks as usize).max().unwrap_or(1),
        }
    }

    /// The longest chain of additions into an entry of the bias's row, or into a mean patch: 32 lanes, their tree, and the images.
    pub fn window_depth(&self) -> usize {
        self.conv.positions().div_ceil(32) + 5 + self.images
    }
}

/// How mean patches, of the accumulator's kind, are multiplied.
pub(super) fn reduced_math(math: Math, kind: Kind) -> Math {
    if math == Math::Mma && kind == Kind::F32 { Math::Tf32x3 } else { math }
}

/// How the covariance of `rows` rows of features is cut for the implicit unfold: groups together fill the device, and its scratch.
pub(super) fn cut(conv: &Conv, rows: usize) -> Cut {
    let one = Cut::with_tile(Tile::SMALL, conv.factor_size(), rows);
    let chunk = (one.chunk.saturating_mul(conv.groups())).min(rows.next_multiple_of(one.chunk.max(1))).min(MOST);
    Cut { chunk: chunk.max(one.chunk), chunks: rows.div_ceil(chunk.max(1)).max(1), ..one }
}

/// Elements of scratch of a group that are enough for [`cut`] of so many rows, and of fewer.
pub(super) fn most_slots(conv: &Conv, rows: usize) -> Option<usize> {
    let one = Cut::most_chunks(Tile::SMALL, conv.factor_size(), rows);
    Cut { chunks: one.div_ceil(conv.groups()).max(rows.div_ceil(MOST)).max(1), ..cut(conv, rows) }.slots()
}

/// Multiply-adds of its whole tiles.
fn multiply_adds(cut: &Cut, rows: usize) -> u64 {
    (cut.tiles * cut.tile.side() * cut.tile.side()) as u64 * rows as u64
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
    let samples = conv.axes3().iter().fold(width::<I>(conv), |samples, axis| samples.saturating_mul(axis.size));
    fits("samples of an image", samples)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.form {
            Form::Plain => "plain",
            Form::Pixels(_) => "pixels",
            Form::Unfold(_) => "implicit unfold",
            Form::Correlation(_) => "correlation",
        };
        let gain = self.unfold_multiply_adds() as f64 / self.multiply_adds() as f64;
        let (side, math) = (self.tile.side(), self.math);
        write!(
            f,
            "{name}, {math} tiles of {side}: {:.3e} multiply-adds, {gain:.2}x fewer than unfolding",
            self.multiply_adds() as f64
        )?;
        match &self.form {
            Form::Plain => {}
            Form::Pixels(cut) | Form::Unfold(cut) => write!(f, "; {} tiles in {} chunks", cut.tiles, cut.chunks)?,
            Form::Correlation(tables) => {
                let (sums, tiles, items) = (tables.sums.len(), tables.tiles(), tables.items.len());
                write!(f, "; {sums} sums, {tiles} tiles in {items} items")?;
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
