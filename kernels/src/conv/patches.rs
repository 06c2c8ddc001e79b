//! Implicit unfolding: patches formed while packing, for products with a convolution's weights and where the correlation form gains nothing.
//!
//! ```text
//! element (image, output; feature (c, p, q))  =  X[image, c, s y + d p - pad, s x + d q - pad], zero in the padding
//! ```

use super::geometry::{Conv, FeatureOrder};
use crate::element::Input;
use crate::engine::kernels::Kernels;
use crate::engine::pack::Pack;
use crate::view::View;

/// The patches of one group of channels as an operand: features are indices, outputs of all images depths, or the other way round.
pub struct Patches<'a, I> {
    /// `[N, C, Z, Y, X]` of the group's channels.
    x: View<'a, I, 5>,
    conv: Conv,
    index: Index,
}

/// What the indices of an operand of patches are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// Features: a covariance, a gradient.
    Features,
    /// Outputs: the layer itself.
    Outputs,
}

impl<'a, I: Input> Patches<'a, I> {
    /// The patches of `x` `[N, C, Z, Y, X]`, the channels of one group of `conv`.
    ///
    /// # Panics
    /// If the shape is not the geometry's.
    pub fn new(x: View<'a, I, 5>, conv: &Conv, index: Index) -> Self {
        let [n, _, sizes @ ..] = conv.input_shape(x.shape()[0]);
        let [z, y, w] = sizes;
        assert_eq!(x.shape(), [n, conv.in_channels() / conv.groups(), z, y, w], "patches: the images' shape");
        Patches { x, conv: *conv, index }
    }

    fn counts(&self) -> (usize, usize) {
        (self.conv.features(), self.x.shape()[0] * self.conv.positions())
    }

    /// Channel and taps of a feature.
    fn feature(&self, feature: usize) -> (usize, [usize; 3]) {
        let taps = self.conv.taps();
        let (c, t) = match self.conv.order() {
            FeatureOrder::ChannelTaps => (feature / taps, feature % taps),
            FeatureOrder::TapsChannel => {
                let channels = self.x.shape()[1];
                (feature % channels, feature / channels)
            }
        };
        let [_, ky, kx] = self.conv.axes3().map(|axis| axis.kernel);
        (c, [t / (ky * kx), t / kx % ky, t % kx])
    }

    /// Image and output of a number.
    fn output(&self, number: usize) -> (usize, [usize; 3]) {
        let [oz, oy, ox] = self.conv.axes3().map(|axis| axis.outputs());
        (number / (oz * oy * ox), [number / (oy * ox) % oz, number / ox % oy, number % ox])
    }

    /// Writes `to[k * step] <- element (output first + k, feature)` for `k < count`.
    fn line(&self, to: &mut [I::Acc], step: usize, feature: usize, first: usize, count: usize) {
        let (c, [p, q, r]) = self.feature(feature);
        let [az, ay, ax] = self.conv.axes3();
        let [image_step, channel_step, zs, ys, xs] = self.x.strides();
        let zero = <I::Acc as num_traits::Zero>::zero();
        let outputs = ax.outputs();
        let mut k = 0;
        while k < count {
            let (image, [oz, oy, ox]) = self.output(first + k);
            let length = (outputs - ox).min(count - k);
            let to = &mut to[k * step..];
            k += length;
            let (Some(z), Some(y)) = (az.sample(oz, p), ay.sample(oy, q)) else {
                (0..length).for_each(|x| to[x * step] = zero);
                continue;
            };
            let at = image as isize * image_step + c as isize * channel_step + z as isize * zs + y as isize * ys;
            let row = self.x.as_ptr().wrapping_offset(at);
            // Outputs whose sample lies inside the row.
            let shift = ax.dilation * r;
            let low = ax.padding[0].saturating_sub(shift).div_ceil(ax.stride).clamp(ox, ox + length);
            let high = (ax.size + ax.padding[0]).saturating_sub(shift).div_ceil(ax.stride).clamp(low, ox + length);
            (ox..low).chain(high..ox + length).for_each(|x| to[(x - ox) * step] = zero);
            for x in low..high {
                let sample = (ax.stride * x + shift - ax.padding[0]) as isize;
                // SAFETY: z, y and the sample lie inside the image.
                to[(x - ox) * step] = unsafe { *row.offset(sample * xs) }.widen();
            }
        }
    }
}

impl<I: Input> Pack<I::Acc> for Patches<'_, I> {
    fn extent(&self) -> usize {
        let (features, outputs) = self.counts();
        if self.index == Index::Features { features } else { outputs }
    }

    fn depth(&self) -> usize {
        let (features, outputs) = self.counts();
        if self.index == Index::Features { outputs } else { features }
    }

    fn pack(&self, panel: &mut [I::Acc], first: usize, start: usize, kernels: &Kernels<I::Acc>) {
        let nr = kernels.nr;
        let width = nr.min(self.extent() - first);
        let depth = panel.len() / nr;
        match self.index {
            // A feature's outputs go down a column of the panel.
            Index::Features => (0..width).for_each(|i| self.line(&mut panel[i..], nr, first + i, start, depth)),
            // A row of the panel is one feature at consecutive outputs.
            Index::Outputs => {
                panel.chunks_exact_mut(nr).enumerate().for_each(|(p, row)| self.line(row, 1, start + p, first, width));
            }
        }
        if width < nr {
            panel.chunks_exact_mut(nr).for_each(|row| row[width..].fill(num_traits::Zero::zero()));
        }
    }
}
