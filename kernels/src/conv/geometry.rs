//! What a convolution is: one validated type that covariances, products and optimisers read.

use crate::covariance::Bias;
use core::fmt;

/// One spatial axis: how `kernel` taps, `dilation` apart, slide over `size` samples in steps of `stride`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Axis {
    /// Samples of the input.
    pub size: usize,
    /// Taps.
    pub kernel: usize,
    /// Samples from one output to the next.
    pub stride: usize,
    /// Samples from one tap to the next.
    pub dilation: usize,
    /// Zeros before the first sample and after the last.
    pub padding: [usize; 2],
}

impl Axis {
    /// `kernel` taps over `size` samples: stride 1, dilation 1, no padding.
    pub fn new(size: usize, kernel: usize) -> Axis {
        Axis { size, kernel, stride: 1, dilation: 1, padding: [0, 0] }
    }

    /// The same with another stride.
    pub fn stride(self, stride: usize) -> Axis {
        Axis { stride, ..self }
    }

    /// The same with another dilation.
    pub fn dilation(self, dilation: usize) -> Axis {
        Axis { dilation, ..self }
    }

    /// The same with `padding` zeros on both sides.
    pub fn padding(self, padding: usize) -> Axis {
        Axis { padding: [padding, padding], ..self }
    }

    /// The same with zeros `[before, after]`.
    pub fn padding_each(self, padding: [usize; 2]) -> Axis {
        Axis { padding, ..self }
    }

    /// Outputs: `(size + padding - dilation (kernel - 1) - 1) / stride + 1`.
    pub fn outputs(&self) -> usize {
        let (padded, reach) = (self.size + self.padding[0] + self.padding[1], self.dilation * (self.kernel - 1) + 1);
        (padded - reach) / self.stride + 1
    }

    /// The sample that output `y` reads through tap `p`, or `None` in the padding.
    pub fn sample(&self, y: usize, p: usize) -> Option<usize> {
        (self.stride * y + self.dilation * p).checked_sub(self.padding[0]).filter(|&at| at < self.size)
    }

    fn check(&self, axis: usize) -> Result<(), GeometryError> {
        let named =
            [("size", self.size), ("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)];
        for (parameter, value) in named {
            if value == 0 {
                return Err(GeometryError::Zero { parameter, axis: Some(axis) });
            }
        }
        let overflow = GeometryError::Overflow { parameter: "size, padding, kernel and dilation", axis: Some(axis) };
        let sum = |a: usize, b: usize| a.checked_add(b).filter(|&sum| sum <= isize::MAX as usize);
        let padded = sum(self.size, self.padding[0]).and_then(|n| sum(n, self.padding[1])).ok_or(overflow.clone())?;
        let reach = self.dilation.checked_mul(self.kernel - 1).and_then(|n| sum(n, 1)).ok_or(overflow.clone())?;
        if reach > padded {
            return Err(GeometryError::KernelTooLarge { axis, reach, padded });
        }
        sum(padded, self.stride).map(|_| ()).ok_or(overflow)
    }
}

/// In which order a group's features, channels by taps, follow one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FeatureOrder {
    /// `(channel, taps)`, the taps of a channel next to each other: PyTorch's weight `[out, in, kh, kw]`, reshaped.
    #[default]
    ChannelTaps,
    /// `(taps, channel)`: weights `[out, kh, kw, in]` of channels-last frameworks.
    TapsChannel,
}

/// Why a convolution is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GeometryError {
    /// A parameter that must be positive is zero.
    Zero {
        /// Its name.
        parameter: &'static str,
        /// Its spatial axis, if it has one.
        axis: Option<usize>,
    },
    /// A number of spatial axes other than 1, 2 or 3.
    Rank {
        /// The number given.
        axes: usize,
    },
    /// The taps reach further than the padded input.
    KernelTooLarge {
        /// The spatial axis.
        axis: usize,
        /// `dilation (kernel - 1) + 1`.
        reach: usize,
        /// `size` and both paddings.
        padded: usize,
    },
    /// Groups that do not divide the channels.
    Groups {
        /// `in_channels` or `out_channels`.
        parameter: &'static str,
        /// The channels.
        channels: usize,
        /// The groups.
        groups: usize,
    },
    /// Sizes whose sum or product does not fit.
    Overflow {
        /// What was combined.
        parameter: &'static str,
        /// The spatial axis, if it is one axis's.
        axis: Option<usize>,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |axis: &Option<usize>| axis.map(|axis| format!(" of spatial axis {axis}")).unwrap_or_default();
        match self {
            GeometryError::Zero { parameter, axis } => {
                write!(f, "{parameter}{} is 0: it must be positive", place(axis))
            }
            GeometryError::Rank { axes } => write!(f, "{axes} spatial axes: a convolution has 1, 2 or 3"),
            GeometryError::KernelTooLarge { axis, reach, padded } => {
                write!(f, "kernel of spatial axis {axis} reaches over {reach} samples, the padded input has {padded}")
            }
            GeometryError::Groups { parameter, channels, groups } => {
                write!(f, "groups {groups} does not divide {parameter} {channels}")
            }
            GeometryError::Overflow { parameter, axis } => write!(f, "{parameter}{} overflow", place(axis)),
        }
    }
}

impl std::error::Error for GeometryError {}

/// A convolution of `N` images `[N, in_channels, sizes..]` with weights `[out_channels, in_channels / groups, kernel..]`: one to three
/// spatial axes, each with kernel, stride, dilation and padding; groups; a bias. Fewer than three axes are kept as the
/// last ones of three, the others of size and kernel 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv {
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    bias: Bias,
    order: FeatureOrder,
    axes: [Axis; 3],
    rank: usize,
}

impl Conv {
    /// A convolution without groups or bias, features in the order `(channel, taps)`.
    ///
    /// # Errors
    /// [`GeometryError`], naming the parameter: a zero, a kernel that does not fit, sizes that overflow.
    pub fn new<const R: usize>(
        in_channels: usize,
        out_channels: usize,
        axes: [Axis; R],
    ) -> Result<Conv, GeometryError> {
        if !(1..=3).contains(&R) {
            return Err(GeometryError::Rank { axes: R });
        }
        for (parameter, channels) in [("in_channels", in_channels), ("out_channels", out_channels)] {
            if channels == 0 {
                return Err(GeometryError::Zero { parameter, axis: None });
            }
        }
        axes.iter().enumerate().try_for_each(|(number, axis)| axis.check(number))?;
        let mut all = [Axis::new(1, 1); 3];
        all[3 - R..].copy_from_slice(&axes);
        let (groups, bias, order) = (1, Bias::Without, FeatureOrder::ChannelTaps);
        let conv = Conv { in_channels, out_channels, groups, bias, order, axes: all, rank: R };
        conv.check_sizes()?;
        Ok(conv)
    }

    /// Every size that follows, and the squares of the factors, fit.
    fn check_sizes(&self) -> Result<(), GeometryError> {
        let fits = |parameter, sizes: &[usize]| {
            let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            let good = product.is_some_and(|n| n <= isize::MAX as usize / size_of::<f64>());
            if good { Ok(()) } else { Err(GeometryError::Overflow { parameter, axis: None }) }
        };
        let [z, y, x] = self.axes;
        fits("in_channels and sizes", &[self.in_channels, z.size, y.size, x.size])?;
        fits("out_channels and outputs", &[self.out_channels, z.outputs(), y.outputs(), x.outputs()])?;
        fits("out_channels, squared", &[self.out_channels, self.out_channels])?;
        fits("in_channels and kernel", &[self.in_channels, z.kernel, y.kernel, x.kernel])?;
        let features = self.features() + 1;
        fits("in_channels and kernel, squared", &[self.groups, features, features])
    }

    /// With channels in `groups`, each group of inputs feeding its own group of outputs; `in_channels` groups are a depthwise convolution.
    ///
    /// # Errors
    /// [`GeometryError::Zero`], or [`GeometryError::Groups`] if they do not divide the channels.
    pub fn with_groups(self, groups: usize) -> Result<Conv, GeometryError> {
        if groups == 0 {
            return Err(GeometryError::Zero { parameter: "groups", axis: None });
        }
        for (parameter, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if channels % groups != 0 {
                return Err(GeometryError::Groups { parameter, channels, groups });
            }
        }
        Ok(Conv { groups, ..self })
    }

    /// With a bias: one more feature, the last, constant 1.
    pub fn with_bias(self) -> Conv {
        Conv { bias: Bias::With, ..self }
    }

    /// With another order of features.
    pub fn with_order(self, order: FeatureOrder) -> Conv {
        Conv { order, ..self }
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Groups of channels.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether there is a bias.
    pub fn bias(&self) -> Bias {
        self.bias
    }

    /// The order of features.
    pub fn order(&self) -> FeatureOrder {
        self.order
    }

    /// The spatial axes as given, outermost first.
    pub fn axes(&self) -> &[Axis] {
        &self.axes[3 - self.rank..]
    }

    /// Three spatial axes, outermost first; those not given have size and kernel 1.
    pub fn axes3(&self) -> [Axis; 3] {
        self.axes
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.kernel).product()
    }

    /// Features of a group: `in_channels / groups` by taps, without the bias.
    pub fn features(&self) -> usize {
        self.in_channels / self.groups * self.taps()
    }

    /// Rows of a group's input factor: its features, plus 1 with bias.
    pub fn factor_size(&self) -> usize {
        self.features() + self.bias.columns()
    }

    /// The shape of the weights: `[out_channels, features]`, with bias `[out_channels, features + 1]`.
    pub fn weight_shape(&self) -> [usize; 2] {
        [self.out_channels, self.factor_size()]
    }

    /// `T`: outputs of an image.
    pub fn positions(&self) -> usize {
        self.axes.iter().map(Axis::outputs).product()
    }

    /// The shape of `n` input images with three spatial axes.
    pub fn input_shape(&self, n: usize) -> [usize; 5] {
        let [z, y, x] = self.axes.map(|axis| axis.size);
        [n, self.in_channels, z, y, x]
    }

    /// The shape of `n` output images with three spatial axes.
    pub fn output_shape(&self, n: usize) -> [usize; 5] {
        let [z, y, x] = self.axes.map(|axis| axis.outputs());
        [n, self.out_channels, z, y, x]
    }

    /// The same over images of three spatial axes, `[N, C, Z, Y, X]`.
    pub fn volumes(self) -> Conv {
        Conv { rank: 3, ..self }
    }

    /// The identity on this convolution's outputs, by group: one tap, no bias. Its patches are the pixels of the errors.
    pub fn outputs_only(&self) -> Conv {
        let axes = self.axes.map(|axis| Axis::new(axis.outputs(), 1));
        Conv { in_channels: self.out_channels, bias: Bias::Without, axes, ..*self }
    }

    /// The identity on this convolution's mean patches, taken for pixels: one tap, with the bias. Its channels are features.
    pub fn mean_patches(&self) -> Conv {
        let axes = self.axes.map(|_| Axis::new(1, 1));
        Conv { in_channels: self.groups * self.features(), axes, order: FeatureOrder::ChannelTaps, ..*self }
    }

    /// The place of tap `(p, q, r)`, numbered row-major, of a group's channel among its features.
    pub fn feature(&self, channel: usize, tap: usize) -> usize {
        match self.order {
            FeatureOrder::ChannelTaps => channel * self.taps() + tap,
            FeatureOrder::TapsChannel => tap * (self.in_channels / self.groups) + channel,
        }
    }
}
