//! The correlation form, described: for code that takes the products elsewhere, on a GPU.
//!
//! The derivation is `axis` and `correlation`, shared with the CPU's own products. One *sum* is one product of three groups of classes over one
//! triple of segments:
//!
//! ```text
//! sum[i, c][j, c']  =  sum over images n and positions (z, y, x)
//!                      X_left[n, c, z, y - shift_y - i, x]  X_right[n, c', z + shift_z, y, x + shift_x + j]
//! ```
//!
//! for row classes `i` and column classes `j`; `X_left` and `X_right` are phases of the image. The block of two taps is the sum of the sums that
//! [`Classes::pair`] names, at the classes that it names, or its transpose.

use super::correlation::{Correlation, Kind};
use super::geometry::Conv;
use core::ops::Range;

/// One product of three groups of classes over one triple of segments; see the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// Of the left samples, each axis's place in [`Classes::phases`].
    pub left: [usize; 3],
    /// Of the right samples.
    pub right: [usize; 3],
    /// `(shift_z, shift_y, shift_x)`, of class 0.
    pub shift: [isize; 3],
    /// Positions along each axis.
    pub positions: [Range<usize>; 3],
    /// Row classes: at every position of them both samples exist.
    pub rows: Range<usize>,
    /// Column classes.
    pub columns: Range<usize>,
    /// Whether the sum is symmetric: both samples are one.
    pub symmetric: bool,
}

impl Sum {
    /// Positions of one image.
    pub fn depth(&self) -> usize {
        self.positions.iter().map(Range::len).product()
    }
}

/// Where the block of two taps is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapPair {
    /// The first sum.
    pub first: usize,
    /// Sums to be added along each axis; none if the two taps never see two samples at once.
    pub counts: [usize; 3],
    /// From one sum to the next along each axis.
    pub steps: [usize; 3],
    /// Row class.
    pub row: usize,
    /// Column class.
    pub column: usize,
    /// Whether the block is the sums' transpose.
    pub transposed: bool,
}

/// The sums of one group of channels, of two transposed classes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Classes(Correlation);

impl Classes {
    /// With at most `rows` consecutive classes of the middle axis and `columns` of the last one in a sum.
    pub fn new(conv: &Conv, rows: usize, columns: usize) -> Classes {
        Classes(Correlation::grouped(conv, conv.in_channels() / conv.groups(), [1, rows, columns]))
    }

    /// The phases of each axis that taps read: samples `stride u + phase`.
    pub fn phases(&self) -> [&[usize]; 3] {
        self.0.axes.each_ref().map(|axis| axis.phases.as_slice())
    }

    /// Samples of the longest phase of each axis.
    pub fn pitch(&self) -> [usize; 3] {
        self.0.axes.each_ref().map(|axis| axis.pitch)
    }

    /// The most sums in one block.
    pub fn longest_window(&self) -> usize {
        self.0.axes.iter().map(|axis| axis.longest_window()).product()
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> u64 {
        self.0.multiply_adds()
    }

    /// All sums, numbered as [`TapPair::first`] counts them.
    pub fn sums(&self) -> Vec<Sum> {
        let mut sums = Vec::with_capacity(self.0.products(Kind::Diagonal).accumulators);
        for product in &self.0.products(Kind::Diagonal).list {
            let groups @ [gz, gy, gx] = self.0.groups(product);
            let symmetric = groups.iter().all(|group| group.count == 1 && group.sign(0) == 0);
            for (z, y) in gz.segments.iter().flat_map(|z| gy.segments.iter().map(move |y| (z, y))) {
                for x in &gx.segments {
                    let first = x.classes.start.max(product.first_class);
                    sums.push(Sum {
                        left: groups.map(|group| group.left),
                        right: groups.map(|group| group.right),
                        shift: groups.map(|group| group.delta),
                        positions: [&z.positions, &y.positions, &x.positions].map(Range::clone),
                        rows: y.classes.clone(),
                        columns: first..x.classes.end.max(first),
                        symmetric,
                    });
                }
            }
        }
        sums
    }

    /// Where to find the block of two taps, each numbered row-major.
    pub fn pair(&self, tap: usize, other: usize) -> TapPair {
        let [z, y, x] = &self.0.axes;
        let taps = |tap: usize| [tap / (y.kernel * x.kernel), tap / x.kernel % y.kernel, tap % x.kernel];
        let pairs = |p: [usize; 3], q: [usize; 3]| [z.pair(p[0], q[0]), y.pair(p[1], q[1]), x.pair(p[2], q[2])];
        let (p, q) = (taps(tap), taps(other));
        let sign = pairs(p, q).iter().map(|pair| pair.sign).find(|&sign| sign != 0).unwrap_or(0);
        let transposed = sign < 0;
        let pairs = if transposed { pairs(q, p) } else { pairs(p, q) };
        let groups = pairs.map(|pair| pair.group);
        let product = self.0.find(Kind::Diagonal, groups);
        let product = product.unwrap_or_else(|| unreachable!("of two transposed classes the positive one is computed"));
        let [_, rows, columns] = self.0.groups(product).map(|group| group.segments.len());
        let steps = [rows * columns, columns, 1];
        TapPair {
            first: product.first + (0..3).map(|axis| pairs[axis].segments.start * steps[axis]).sum::<usize>(),
            counts: pairs.map(|pair| pair.segments.len()),
            steps,
            row: pairs[1].class,
            column: pairs[2].class,
            transposed,
        }
    }
}
