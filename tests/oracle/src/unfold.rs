//! Convolutions as weight-shared dense layers: the patches written out, one row per output position.
//!
//! Images are `[N, C, D, H, W]`, row-major; a convolution over fewer axes has size 1 along the others. A patch is a row of a
//! group's channels and taps, so a batch of patches is what [`crate::fisher`] takes for a layer with shared weights.

use crate::Dense;
use crate::fisher::{self, Sharing};
use crate::network::Bias;

/// A convolution's geometry along depth, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Taps.
    pub kernel: [usize; 3],
    /// Distance between output positions.
    pub stride: [usize; 3],
    /// Zeros before and after the image: `[low, high]`, of any size.
    pub padding: [[usize; 2]; 3],
    /// Distance between taps.
    pub dilation: [usize; 3],
    /// Groups of channels, each convolved by itself.
    pub groups: usize,
}

/// In which order a patch lists its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Channel by channel, the taps of a channel next to each other: a framework's `[o, C, kd, kh, kw]` weight as a matrix.
    ChannelTaps,
    /// Tap by tap, the channels at a tap next to each other.
    TapsChannel,
}

impl Convolution {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new(kernel: [usize; 3]) -> Self {
        Self { kernel, stride: [1; 3], padding: [[0; 2]; 3], dilation: [1; 3], groups: 1 }
    }

    /// Over one axis: `[N, C, 1, 1, W]`.
    pub fn one(kernel: usize) -> Self {
        Self::new([1, 1, kernel])
    }

    /// Over two axes: `[N, C, 1, H, W]`.
    pub fn two(kernel: [usize; 2]) -> Self {
        Self::new([1, kernel[0], kernel[1]])
    }

    /// Output sizes for an image of the given sizes: `(low + size + high - d (k - 1) - 1) / s + 1` along each axis.
    pub fn output(&self, size: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let [low, high] = self.padding[axis];
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let padded = low + size[axis] + high;
            assert!(padded >= reach, "axis {axis}: {reach} taps and gaps in {padded} padded samples");
            (padded - reach) / self.stride[axis] + 1
        })
    }

    /// The sample that tap `tap` of the output at `position` sees, or `None` in the padding.
    fn sample(&self, position: [usize; 3], tap: [usize; 3], size: [usize; 3]) -> Option<[usize; 3]> {
        let mut sample = [0; 3];
        for axis in 0..3 {
            let padded = self.stride[axis] * position[axis] + self.dilation[axis] * tap[axis];
            sample[axis] = padded.checked_sub(self.padding[axis][0])?;
            if sample[axis] >= size[axis] {
                return None;
            }
        }
        Some(sample)
    }

    /// The patches of group `group` of one image `[C, D, H, W]`: `[T, (C / groups) taps]`, positions in row-major order. Entries in
    /// the padding are `zero`, the others copies of the image's, whatever their type.
    pub fn patches<T: Copy>(
        &self,
        image: &[T],
        zero: T,
        channels: usize,
        size: [usize; 3],
        group: usize,
        order: Order,
    ) -> Vec<T> {
        assert_eq!(image.len(), channels * product(size), "image size");
        assert!(channels.is_multiple_of(self.groups) && group < self.groups, "groups of channels");
        let width = channels / self.groups;
        let taps = product(self.kernel);
        let mut patches = Vec::new();
        for position in 0..product(self.output(size)) {
            for feature in 0..width * taps {
                let (c, tap) = match order {
                    Order::ChannelTaps => (feature / taps, feature % taps),
                    Order::TapsChannel => (feature % width, feature / width),
                };
                let (position, tap) = (index(position, self.output(size)), index(tap, self.kernel));
                let value = self.sample(position, tap, size).map_or(zero, |[z, y, x]| {
                    let channel = group * width + c;
                    image[((channel * size[0] + z) * size[1] + y) * size[2] + x]
                });
                patches.push(value);
            }
        }
        patches
    }

    /// [`Convolution::patches`] of a batch `[N, C, D, H, W]`, one matrix `[T, features]` for each image, a constant 1 after each
    /// patch for a bias being [`fisher::with_one`]'s to add.
    pub fn unfold(&self, images: &[f64], channels: usize, size: [usize; 3], group: usize, order: Order) -> Vec<Dense> {
        let features = channels / self.groups * product(self.kernel);
        let positions = product(self.output(size));
        let patches = |image: &[f64]| self.patches(image, 0.0, channels, size, group, order);
        let images = images.chunks_exact(channels * product(size));
        images.map(|image| Dense::from_slice(positions, features, &patches(image))).collect()
    }

    /// The input factor `A` of each group, of the unfolded batch.
    pub fn input_factors(
        &self,
        images: &[f64],
        channels: usize,
        size: [usize; 3],
        order: Order,
        bias: Bias,
        sharing: Sharing,
    ) -> Vec<Dense> {
        let factor = |group| {
            let patches = self.unfold(images, channels, size, group, order);
            match bias {
                Bias::Without => fisher::input_factor(&patches, sharing),
                Bias::With => fisher::input_factor(&fisher::with_one(&patches), sharing),
            }
        };
        (0..self.groups).map(factor).collect()
    }
}

/// The number of places in a box.
fn product(sizes: [usize; 3]) -> usize {
    sizes.iter().product()
}

/// The place numbered `k` of a box, the last axis fastest.
fn index(k: usize, [_, height, width]: [usize; 3]) -> [usize; 3] {
    [k / (height * width), k / width % height, k % width]
}

/// Channel-first values `[C, positions]` as one row per position, `[positions, C]`.
pub fn positions_first(values: &[f64], channels: usize) -> Dense {
    Dense::from_slice(channels, values.len() / channels, values).transpose()
}

/// The columns that belong to group `g` of `groups`.
pub fn group(rows: &Dense, g: usize, groups: usize) -> Dense {
    let width = rows.cols / groups;
    rows.block(0..rows.rows, g * width..(g + 1) * width)
}
