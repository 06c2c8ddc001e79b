//! Features times a number each, while they are packed.

use crate::conv::patches::Index;
use crate::conv::{Conv, FeatureOrder};
use crate::element::Element;
use crate::engine::WIDEST;
use crate::engine::kernels::Kernels;

/// A number for each feature, the last for the constant of a bias, if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales<'a, T> {
    values: &'a [T],
    /// Channels and taps, where features are packed by tap, then channel, and the numbers lie by channel, then tap.
    by_channel: Option<[usize; 2]>,
}

impl<'a, T: Element> Scales<'a, T> {
    /// In the order of `values`.
    pub(crate) fn new(values: &'a [T]) -> Self {
        Scales { values, by_channel: None }
    }

    /// For the features of `conv` packed by tap, then channel.
    pub(crate) fn by_tap(self, conv: &Conv) -> Self {
        let taps = conv.taps();
        let sizes = (conv.order() == FeatureOrder::ChannelTaps).then_some([conv.features() / taps, taps]);
        Scales { by_channel: sizes.or(self.by_channel), ..self }
    }

    /// That of a packed feature; zero beyond the last.
    fn at(&self, feature: usize) -> T {
        let place = match self.by_channel {
            Some([channels, taps]) if feature < channels * taps => feature % channels * taps + feature / channels,
            _ => feature,
        };
        self.values.get(place).copied().unwrap_or(T::zero())
    }
}

/// [`Scales`] of an operand whose features are its indices or its depths.
pub(crate) struct Scaled<'a, T> {
    scales: Scales<'a, T>,
    index: Index,
}

impl<'a, T: Element> Scaled<'a, T> {
    pub(crate) fn new(scales: Scales<'a, T>, index: Index) -> Self {
        Scaled { scales, index }
    }

    /// Scales a panel of indices from `first` and depths from `start` on.
    pub(crate) fn multiply(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let nr = kernels.nr;
        match self.index {
            Index::Features => {
                let mut factors = [T::zero(); WIDEST];
                factors[..nr].iter_mut().enumerate().for_each(|(j, factor)| *factor = self.scales.at(first + j));
                for row in panel.chunks_exact_mut(nr) {
                    // SAFETY: the kernels belong to an ISA this CPU has; two lines of `nr` elements.
                    unsafe { (kernels.multiply)(row.as_mut_ptr(), factors.as_ptr(), nr) };
                }
            }
            Index::Outputs => {
                for (p, row) in panel.chunks_exact_mut(nr).enumerate() {
                    // SAFETY: the kernels belong to an ISA this CPU has; a line onto itself.
                    unsafe {
                        (kernels.blend)(row.as_mut_ptr(), row.as_ptr(), nr, self.scales.at(start + p), T::zero())
                    };
                }
            }
        }
    }
}
