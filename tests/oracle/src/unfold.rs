//! Convolutions as weight-shared dense layers: the patches, one row per output position.

use crate::Dense;

/// A two-dimensional convolution's geometry; pairs are `(vertical, horizontal)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Kernel size.
    pub kernel: (usize, usize),
    /// Distance between output positions.
    pub stride: (usize, usize),
    /// Zeros on either side of the image.
    pub padding: (usize, usize),
    /// Distance between taps.
    pub dilation: (usize, usize),
    /// Groups of channels, each convolved by itself.
    pub groups: usize,
}

impl Convolution {
    /// A square `k x k` kernel with stride 1, no padding, no dilation and one group.
    pub fn square(k: usize) -> Self {
        Self { kernel: (k, k), stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }
    }

    /// Output height and width for an image of the given height and width.
    pub fn output(&self, (h, w): (usize, usize)) -> (usize, usize) {
        let along = |size, k, s, p, d| (size + 2 * p - d * (k - 1) - 1) / s + 1;
        let Self { kernel, stride, padding, dilation, .. } = *self;
        (along(h, kernel.0, stride.0, padding.0, dilation.0), along(w, kernel.1, stride.1, padding.1, dilation.1))
    }

    /// The patches of one image `[C, H, W]` (row-major): `[Ho Wo, C kh kw]`, entry `((y, x), (c, p, q))` being
    /// `image[c, s y + d p - pad, s x + d q - pad]`, zero outside the image.
    pub fn unfold(&self, image: &[f64], channels: usize, (h, w): (usize, usize)) -> Dense {
        assert_eq!(image.len(), channels * h * w, "image size");
        let (kh, kw) = self.kernel;
        let (ho, wo) = self.output((h, w));
        Dense::from_fn(ho * wo, channels * kh * kw, |t, f| {
            let (y, x) = (t / wo, t % wo);
            let (c, p, q) = (f / (kh * kw), f / kw % kh, f % kw);
            let row = (self.stride.0 * y + self.dilation.0 * p).checked_sub(self.padding.0);
            let col = (self.stride.1 * x + self.dilation.1 * q).checked_sub(self.padding.1);
            match (row, col) {
                (Some(row), Some(col)) if row < h && col < w => image[(c * h + row) * w + col],
                _ => 0.0,
            }
        })
    }
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
