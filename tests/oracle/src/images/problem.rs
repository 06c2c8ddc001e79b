//! A batch of images and a geometry, how its covariance is asked for, and what it is by the explicit unfold.

use crate::layout::{Buffer, Layout};
use crate::unfold::{Convolution, Order};
use crate::{Dense, Random, fisher};
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Element, Triangle};

/// How images lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// `[N, C, Z, Y, X]` in this layout.
    ChannelsFirst(Layout),
    /// `[N, Z, Y, X, C]` in this layout.
    ChannelsLast(Layout),
}

/// How a factor is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What positions contribute.
    pub sharing: Sharing,
    /// Which part is written.
    pub triangle: Triangle,
    /// `alpha` and `beta`.
    pub blend: [f64; 2],
    /// How the images lie.
    pub images: Images,
    /// How the output lies.
    pub output: Layout,
}

impl Default for Request {
    /// All of the sum, set, row-major.
    fn default() -> Self {
        Request {
            sharing: Sharing::Expand,
            triangle: Triangle::Full,
            blend: [1.0, 0.0],
            images: Images::ChannelsFirst(Layout::RowMajor),
            output: Layout::RowMajor,
        }
    }
}

/// `n` images `[N, C, Z, Y, X]`, row-major.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The geometry.
    pub conv: Conv,
    /// Images.
    pub n: usize,
    /// Their elements.
    pub x: Vec<f64>,
}

/// `oracle` and the kernels' geometry say the same.
pub fn oracle(conv: &Conv) -> (Convolution, Order) {
    let axes = conv.axes3();
    let convolution = Convolution {
        kernel: axes.map(|axis| axis.kernel),
        stride: axes.map(|axis| axis.stride),
        padding: axes.map(|axis| axis.padding),
        dilation: axes.map(|axis| axis.dilation),
        groups: conv.groups(),
    };
    let order = match conv.order() {
        FeatureOrder::ChannelTaps => Order::ChannelTaps,
        FeatureOrder::TapsChannel => Order::TapsChannel,
    };
    (convolution, order)
}

impl Problem {
    /// Small integers.
    pub fn integers(conv: Conv, n: usize, random: &mut Random) -> Self {
        let len = conv.input_shape(n).iter().product();
        Problem { conv, n, x: (0..len).map(|_| random.integer(3)).collect() }
    }

    /// Normal numbers, rounded to `T`.
    pub fn normals<T: Element>(conv: Conv, n: usize, random: &mut Random) -> Self {
        let len: usize = conv.input_shape(n).iter().product();
        Problem { conv, n, x: random.normals(1, len).rounded::<T>().data }
    }

    /// The same geometry with other images.
    pub fn with(&self, n: usize, x: Vec<f64>) -> Self {
        Problem { conv: self.conv, n, x }
    }

    /// The elements of one image.
    pub fn image_len(&self) -> usize {
        self.conv.input_shape(1).iter().product()
    }

    /// Each group's rows for each image, a constant 1 after them with a bias.
    pub fn rows(&self) -> Vec<Vec<Dense>> {
        let (convolution, order) = oracle(&self.conv);
        let size = self.conv.axes3().map(|axis| axis.size);
        let rows = |group| {
            let rows = convolution.unfold(&self.x, self.conv.in_channels(), size, group, order);
            if self.conv.bias() == Bias::With { fisher::with_one(&rows) } else { rows }
        };
        (0..self.conv.groups()).map(rows).collect()
    }

    /// The sum that each group's factor is: of all rows' squares, or of the squares of each image's mean row.
    pub fn expected(&self, sharing: Sharing) -> Vec<Dense> {
        let sum = |images: Vec<Dense>| {
            let rows = match sharing {
                Sharing::Expand => fisher::stacked(&images),
                Sharing::Reduce => {
                    let mean = |x: &Dense| fisher::summed_over_rows(x).scaled(1.0 / x.rows as f64);
                    fisher::stacked(&images.iter().map(mean).collect::<Vec<_>>())
                }
            };
            rows.transpose().matmul(&rows)
        };
        self.rows().into_iter().map(sum).collect()
    }

    /// The images in a buffer.
    pub fn images<I: bytemuck::Pod + num_traits::NumCast>(&self, images: Images) -> Buffer<I, 5> {
        let shape @ [n, c, z, y, x] = self.conv.input_shape(self.n);
        match images {
            Images::ChannelsFirst(layout) => Buffer::embed(&self.x, shape, layout),
            Images::ChannelsLast(layout) => {
                let pixels = z * y * x;
                let at = |k: usize| {
                    let (image, pixel, channel) = (k / c / pixels, k / c % pixels, k % c);
                    self.x[(image * c + channel) * pixels + pixel]
                };
                let values: Vec<f64> = (0..self.x.len()).map(at).collect();
                let buffer = Buffer::<I, 5>::embed(&values, [n, z, y, x, c], layout);
                let view = buffer.view().channels_last();
                let (shape, strides) = (view.shape(), view.strides());
                Buffer { shape, strides, ..buffer }
            }
        }
    }

    /// An output: poison where nothing is read, `old` elsewhere.
    pub fn output<T: Element>(&self, old: &[Dense], request: &Request) -> Buffer<T, 3> {
        let (groups, size) = (self.conv.groups(), self.conv.factor_size());
        let mut out = Buffer::<T, 3>::poisoned([groups, size, size], request.output);
        if request.blend[1] != 0.0 {
            for (k, place) in out.places().into_iter().enumerate() {
                let (g, i, j) = (k / (size * size), k / size % size, k % size);
                if request.triangle == Triangle::Full || j <= i {
                    out.data[place] = T::from_f64(old[g][(i, j)]);
                }
            }
        }
        out
    }
}

/// `kernel` taps over `size` samples, one zero on each side.
pub fn padded(size: usize, kernel: usize) -> Axis {
    Axis::new(size, kernel).padding(1)
}
