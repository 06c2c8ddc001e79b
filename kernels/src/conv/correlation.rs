//! The correlation form of a convolution's covariance: which products are taken, and how many multiply-adds they are.
//!
//! See `docs/convolution.md` for the derivation. All of it depends on the geometry alone; what depends on the batch is in
//! `layout`.

use super::axis::{AxisPlan, Count, Group, Grouping};
use super::geometry::Conv;

/// Channels up to which a pixel's rows of taps are gathered into one left operand: fewer would leave a register tile's rows empty.
const FEW_CHANNELS: usize = 8;

/// Which classes a pair of channel tiles needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A tile with itself: of two transposed classes one.
    Diagonal,
    /// Two tiles: all.
    Off,
}

/// One group on each axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Product {
    pub(crate) groups: [usize; 3],
    /// The first class of the last axis that is needed.
    pub(crate) first_class: usize,
    /// Accumulators before this product's: one for each triple of segments.
    pub(crate) first: usize,
}

/// The products of one kind of tile pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Products {
    pub(crate) list: Vec<Product>,
    /// Place in `list` of groups `[z][y][x]`, or `usize::MAX`.
    places: Vec<usize>,
    /// Accumulators in all.
    pub(crate) accumulators: usize,
}

/// The correlation form of one group of channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Correlation {
    pub(crate) axes: [AxisPlan; 3],
    pub(crate) diagonal: Products,
    pub(crate) off: Products,
    /// Channels of a group.
    pub(crate) channels: usize,
    /// Channels of a tile; the last may have fewer.
    pub(crate) width: usize,
    /// Whether a tile's channels are groups of their own, side by side in a vector: depthwise.
    pub(crate) lanes: bool,
}

impl Products {
    fn new(axes: &[AxisPlan; 3], kind: Kind) -> Products {
        let [z, y, x] = axes;
        let mut list = Vec::new();
        let mut places = vec![usize::MAX; z.groups.len() * y.groups.len() * x.groups.len()];
        let mut accumulators = 0;
        for (g, group) in z.groups.iter().enumerate() {
            for (h, row) in y.groups.iter().enumerate() {
                for (i, column) in x.groups.iter().enumerate() {
                    let Some(first_class) = first_class(kind, [group, row, column]) else { continue };
                    places[(g * y.groups.len() + h) * x.groups.len() + i] = list.len();
                    list.push(Product { groups: [g, h, i], first_class, first: accumulators });
                    accumulators += group.segments.len() * row.segments.len() * column.segments.len();
                }
            }
        }
        Products { list, places, accumulators }
    }
}

/// The first class of the last axis that a product of three groups must compute, if it is needed at all.
///
/// Of a class and its transposed one, a diagonal pair of tiles takes that whose first sign that is not zero is positive.
fn first_class(kind: Kind, [z, y, x]: [&Group; 3]) -> Option<usize> {
    if kind == Kind::Off {
        return Some(0);
    }
    let all_zero = |group: &Group| group.count == 1 && group.sign(0) == 0;
    for group in [z, y] {
        if !all_zero(group) {
            // Groups of these axes hold no negative class beside others.
            return (group.sign(0) >= 0).then_some(0);
        }
    }
    let first = x.first_not_negative();
    (first < x.count).then_some(first)
}

impl Correlation {
    /// For panels of `panel` elements.
    pub(crate) fn new(conv: &Conv, panel: usize) -> Correlation {
        let channels = conv.in_channels() / conv.groups();
        let width = channels.min(panel);
        let few = width < FEW_CHANNELS && conv.axes3()[1].kernel > 1;
        let most = [1, if few { FEW_CHANNELS.div_ceil(width) * 3 } else { 1 }, (panel / width).max(1)];
        Correlation::grouped(conv, width, most)
    }

    /// With tiles of `width` channels and at most so many classes in a group of each axis.
    pub(crate) fn grouped(conv: &Conv, width: usize, most: [usize; 3]) -> Correlation {
        let channels = conv.in_channels() / conv.groups();
        let count = [Count::Left, Count::Right, Count::Left];
        let plan = |axis: usize| {
            let grouping = Grouping { most: most[axis], count: count[axis], mixed: axis == 2 };
            AxisPlan::new(&conv.axes3()[axis], grouping)
        };
        let axes = [plan(0), plan(1), plan(2)];
        let (diagonal, off) = (Products::new(&axes, Kind::Diagonal), Products::new(&axes, Kind::Off));
        Correlation { axes, diagonal, off, channels, width, lanes: false }
    }

    pub(crate) fn products(&self, kind: Kind) -> &Products {
        match kind {
            Kind::Diagonal => &self.diagonal,
            Kind::Off => &self.off,
        }
    }

    /// The product of three groups, if a pair of tiles of this kind takes it.
    pub(crate) fn find(&self, kind: Kind, [z, y, x]: [usize; 3]) -> Option<&Product> {
        let [_, rows, columns] = self.axes.each_ref().map(|axis| axis.groups.len());
        let products = self.products(kind);
        products.list.get(products.places[(z * rows + y) * columns + x])
    }

    pub(crate) fn groups(&self, product: &Product) -> [&Group; 3] {
        core::array::from_fn(|axis| &self.axes[axis].groups[product.groups[axis]])
    }

    /// Channel tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.channels.div_ceil(self.width)
    }

    /// Channels of a tile.
    pub(crate) fn tile_width(&self, tile: usize) -> usize {
        self.width.min(self.channels - tile * self.width)
    }

    /// Multiply-adds for one image of one group of channels.
    pub fn multiply_adds(&self) -> u64 {
        let mut total = 0;
        for i in 0..self.tiles() {
            for j in 0..=i {
                let kind = if i == j { Kind::Diagonal } else { Kind::Off };
                let channels = self.tile_width(i) as u64 * self.tile_width(j) as u64;
                let positions: u64 =
                    self.products(kind).list.iter().map(|product| self.pairs_of_samples(product)).sum();
                total += channels * positions;
            }
        }
        total
    }

    /// Pairs of samples that a product multiplies, for one channel against one.
    fn pairs_of_samples(&self, product: &Product) -> u64 {
        let [z, y, x] = self.groups(product);
        let sum = |group: &Group, first: usize| -> u64 {
            let count =
                |s: &super::axis::Segment| s.positions.len() * s.classes.end.saturating_sub(s.classes.start.max(first));
            group.segments.iter().map(|s| count(s) as u64).sum()
        };
        sum(z, 0) * sum(y, 0) * sum(x, product.first_class)
    }

    /// The longest chain of sums of segments that make one entry.
    pub(crate) fn segments_of_entry(&self) -> usize {
        let [z, y, x] = self.axes.each_ref().map(AxisPlan::longest_window);
        z * y + x
    }

    /// The most classes in a group of each axis.
    pub(crate) fn most_classes(&self) -> [usize; 3] {
        self.axes.each_ref().map(|axis| axis.groups.iter().map(|group| group.count).max().unwrap_or(1))
    }
}
