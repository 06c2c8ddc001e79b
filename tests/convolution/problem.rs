//! A batch of images and a geometry, its covariance by the explicit unfold, and by every plan.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::conv::{Axis, Conv, ConvSpec, FeatureOrder, Form, Plan, covariance, scratch};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Element, Input, Par, Triangle};
use foof_oracle::compare::assert_same_bits;
use foof_oracle::kernels::for_every_par;
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::unfold::{Convolution, Order};
use foof_oracle::{Dense, Random, fisher};
use half::{bf16, f16};
use std::mem::MaybeUninit;

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
    pub sharing: Sharing,
    pub triangle: Triangle,
    /// `alpha` and `beta`.
    pub blend: [f64; 2],
    pub images: Images,
    pub output: Layout,
}

impl Default for Request {
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
    pub conv: Conv,
    pub n: usize,
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

/// Every algorithm for a geometry.
pub fn plans<T: Element>(conv: &Conv, par: Par) -> Vec<Plan> {
    let chosen = Plan::new::<T>(conv, par);
    let mut plans = vec![Plan::correlation::<T>(conv, par), Plan::unfold(conv)];
    match chosen.form() {
        Form::Pixels | Form::Depthwise(_) => plans.push(chosen),
        form => assert!(plans.iter().any(|plan| plan.form() == form), "{chosen}"),
    }
    plans
}

/// What an algorithm is called.
pub fn name(plan: &Plan) -> &'static str {
    match plan.form() {
        Form::Pixels => "pixels",
        Form::Correlation(_) => "correlation",
        Form::Depthwise(_) => "depthwise correlation",
        Form::Unfold => "implicit unfold",
    }
}

impl Problem {
    pub fn integers(conv: Conv, n: usize, random: &mut Random) -> Self {
        let len = conv.input_shape(n).iter().product();
        Problem { conv, n, x: (0..len).map(|_| random.integer(3)).collect() }
    }

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

    /// Runs a plan into `out`, with scratch of the length it asks for, poisoned.
    pub fn run<I: Input + bytemuck::Pod>(
        &self,
        images: &Buffer<I, 5>,
        plan: &Plan,
        request: &Request,
        mut out: Buffer<I::Acc, 3>,
        par: Par,
    ) -> Buffer<I::Acc, 3> {
        let [alpha, beta] = request.blend.map(<I::Acc as Element>::from_f64);
        let spec = ConvSpec { sharing: request.sharing, triangle: request.triangle, blend: Blend { alpha, beta } };
        let mut memory = MemBuffer::new(scratch::<I::Acc>(self.n, plan, request.sharing, par));
        // Scratch that is read before it is written is NaN.
        memory.fill(MaybeUninit::new(0xff));
        covariance(out.view_mut(), images.view(), plan, &spec, par, MemStack::new(&mut memory));
        out.assert_margins_intact("convolution's covariance");
        out
    }

    /// Every plan on every instruction set and several numbers of threads, for integers: the oracle's bits. Entries above the
    /// diagonal stay as they are if one triangle is asked.
    #[track_caller]
    pub fn assert_exact<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request) {
        self.assert_exactly::<I>(request, &self.expected(request.sharing));
    }

    /// The same with the sums known.
    #[track_caller]
    pub fn assert_exactly<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request, sums: &[Dense]) {
        let size = self.conv.factor_size();
        let old: Vec<Dense> = sums.iter().map(|sum| sum.map(|v| v % 7.0 - 3.0)).collect();
        let [alpha, beta] = request.blend;
        let entry = |g: usize, i: usize, j: usize| -> I::Acc {
            if request.triangle == Triangle::Lower && j > i {
                return poison();
            }
            let kept = if beta == 0.0 { 0.0 } else { beta * old[g][(i, j)] };
            // Without the sign of a zero.
            <I::Acc as Element>::from_f64(alpha * sums[g][(i, j)] + kept + 0.0)
        };
        let places = (0..sums.len() * size * size).map(|k| entry(k / (size * size), k / size % size, k % size));
        let expected: Vec<I::Acc> = places.collect();
        let images = self.images::<I>(request.images);
        let names: Vec<_> = plans::<I::Acc>(&self.conv, Par::seq()).iter().map(name).collect();
        for (number, name) in names.into_iter().enumerate() {
            let got = for_every_par(name, |par| {
                let plan = &plans::<I::Acc>(&self.conv, par)[number];
                self.run(&images, plan, request, self.output(&old, request), par).elements()
            });
            for (isa, mut got) in got {
                got.iter_mut().filter(|x| **x == num_traits::Zero::zero()).for_each(|x| *x = num_traits::Zero::zero());
                if bytemuck::cast_slice::<_, u8>(&got) != bytemuck::cast_slice::<_, u8>(&expected) {
                    assert_same_bits(
                        &got,
                        &expected,
                        &format!("{name}, {isa}: n = {}, {:?}, {request:?}", self.n, self.conv),
                    );
                }
            }
        }
    }
}

/// `name::<f32>` .. for each type of input.
#[track_caller]
pub fn assert_exact_for_every_type(problem: &Problem, request: &Request) {
    let sums = problem.expected(request.sharing);
    problem.assert_exactly::<f32>(request, &sums);
    problem.assert_exactly::<f64>(request, &sums);
    problem.assert_exactly::<bf16>(request, &sums);
    problem.assert_exactly::<f16>(request, &sums);
}

/// `kernel` taps over `size` samples, one zero on each side.
pub fn padded(size: usize, kernel: usize) -> Axis {
    Axis::new(size, kernel).padding(1)
}
