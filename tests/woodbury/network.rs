//! Random networks: what layers saw, and the gradients of single rows that the oracles are built from.

use foof::convolution::{Axis, Conv, FeatureOrder};
use foof::layer::Layer;
use foof::optim::Observation;
use foof::woodbury::{Direction, LayerBatch};
use foof::{Bias, Element, MatMut, MatRef, Par, View};
use foof_kernels::woodbury as kernel;
use foof_oracle::fisher::{concatenated, datapoints, gradients, with_one};
use foof_oracle::unfold::{Convolution, Order, group, positions_first};
use foof_oracle::{Dense, Random};

/// A layer's kind and sizes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `[i, o]`, with positions and bias.
    Dense { i: usize, o: usize, t: usize, bias: Bias },
    /// A convolution of `[C, o]`, on `h x w` pixels.
    Conv {
        c: usize,
        o: usize,
        h: usize,
        w: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
        bias: Bias,
        order: FeatureOrder,
    },
}

impl Kind {
    pub fn dense(i: usize, o: usize) -> Kind {
        Kind::Dense { i, o, t: 1, bias: Bias::Without }
    }

    pub fn layer(self) -> Layer {
        match self {
            Kind::Dense { i, o, t, bias } => {
                let layer = Layer::dense(i, o).and_then(|layer| layer.with_positions(t)).expect("sizes are positive");
                if bias == Bias::With { layer.with_bias() } else { layer }
            }
            Kind::Conv { c, o, h, w, kernel, stride, groups, bias, order } => {
                let axis = |size| Axis::new(size, kernel).stride(stride).padding(1).dilation(1);
                let conv = Conv::new(c, o, [axis(h), axis(w)]).and_then(|conv| conv.with_groups(groups));
                let conv = conv.expect("a convolution").with_order(order);
                Layer::conv(if bias == Bias::With { conv.with_bias() } else { conv })
            }
        }
    }

    fn lens(self) -> [Vec<usize>; 2] {
        let layer = self.layer();
        match (self, layer.convolution()) {
            (Kind::Dense { i, o, t, .. }, _) => [vec![t, i], vec![t, o]],
            (_, Some(conv)) => {
                let ([_, c, _, y, x], [_, o, _, oy, ox]) = (conv.input_shape(1), conv.output_shape(1));
                [vec![c, y, x], vec![o, oy, ox]]
            }
            _ => unreachable!("a convolution has a geometry"),
        }
    }
}

/// What one layer saw, in `T`, with the same numbers in f64.
pub struct Seen<T> {
    pub kind: Kind,
    pub layer: Layer,
    x: Vec<T>,
    e: Vec<T>,
    pub n: usize,
    pub rows: usize,
    /// `[R, P]`, one row's gradient each.
    pub gradients: Dense,
    /// The same of absolute values: sums of absolute products.
    pub magnitudes: Dense,
}

impl<T: Element> Seen<T> {
    pub fn new(kind: Kind, n: usize, labels: usize, mut draw: impl FnMut(usize, usize) -> Dense) -> Self {
        let layer = kind.layer();
        let ([x_len, e_len], rows) = (kind.lens(), n * labels);
        let x = draw(n, x_len.iter().product()).rounded::<T>();
        let e = draw(rows, e_len.iter().product()).rounded::<T>();
        let all = |x: &Dense, e: &Dense| gradients_of(kind, x, e, labels);
        let (gradients, magnitudes) = (all(&x, &e), all(&x.abs(), &e.abs()));
        Seen { kind, layer, x: x.to_vec(), e: e.to_vec(), n, rows, gradients, magnitudes }
    }

    pub fn batch(&self) -> LayerBatch<'_, T> {
        let [x, e] = self.kind.lens();
        let made = match self.kind {
            Kind::Dense { .. } => LayerBatch::new(
                &self.layer,
                View::new(&self.x, [self.n, x[0], x[1]]).expect("the shape"),
                View::new(&self.e, [self.rows, e[0], e[1]]).expect("the shape"),
            ),
            Kind::Conv { .. } => LayerBatch::new(
                &self.layer,
                View::new(&self.x, [self.n, x[0], x[1], x[2]]).expect("the shape"),
                View::new(&self.e, [self.rows, e[0], e[1], e[2]]).expect("the shape"),
            ),
        };
        made.expect("the layer's shapes")
    }

    /// The same for the kernels.
    pub fn kernel(&self) -> kernel::Layer<'_, T> {
        let [x, e] = self.kind.lens();
        match (self.kind, self.layer.convolution()) {
            (Kind::Conv { .. }, Some(conv)) => {
                let x = View::new(&self.x, [self.n, x[0], 1, x[1], x[2]]).expect("the shape");
                kernel::Layer::conv(x, View::new(&self.e, [self.rows, e[0], 1, e[1], e[2]]).expect("the shape"), *conv)
            }
            _ => {
                let x = View::new(&self.x, [self.n, x[0], x[1]]).expect("the shape");
                let e = View::new(&self.e, [self.rows, e[0], e[1]]).expect("the shape");
                kernel::Layer::shared(x, e, self.layer.bias())
            }
        }
    }

    pub fn shape(&self) -> [usize; 2] {
        self.layer.weight_shape()
    }

    /// What an optimiser is shown.
    pub fn observation(&self) -> Observation<'_, T> {
        let [x, e] = self.kind.lens();
        match self.kind {
            Kind::Dense { .. } => Observation::new(View::new(&self.x, [self.n, x[0], x[1]]).expect("the shape"))
                .with_errors(View::new(&self.e, [self.rows, e[0], e[1]]).expect("the shape")),
            Kind::Conv { .. } => Observation::new(View::new(&self.x, [self.n, x[0], x[1], x[2]]).expect("the shape"))
                .with_errors(View::new(&self.e, [self.rows, e[0], e[1], e[2]]).expect("the shape")),
        }
    }
}

/// One gradient for each row, from unfolded inputs, group after group.
fn gradients_of(kind: Kind, x: &Dense, e: &Dense, labels: usize) -> Dense {
    match kind {
        Kind::Dense { i, o, t, bias } => {
            let (x, e) = (datapoints(&x.unvec(x.rows * t, i), t), datapoints(&e.unvec(e.rows * t, o), t));
            let x = if bias == Bias::With { with_one(&x) } else { x };
            gradients(&repeated(&x, labels), &e)
        }
        Kind::Conv { c, h, w, kernel, stride, groups, bias, o, order } => {
            let order = match order {
                FeatureOrder::ChannelTaps => Order::ChannelTaps,
                FeatureOrder::TapsChannel => Order::TapsChannel,
            };
            let convolution = Convolution {
                stride: [1, stride, stride],
                padding: [[0; 2], [1; 2], [1; 2]],
                groups,
                ..Convolution::two([kernel, kernel])
            };
            let rows: Vec<Dense> = (0..e.rows).map(|r| positions_first(e.row(r), o)).collect();
            let of_group = |g: usize| {
                let x = convolution.unfold(&x.data, c, [1, h, w], g, order);
                let x = if bias == Bias::With { with_one(&x) } else { x };
                let e: Vec<Dense> = rows.iter().map(|rows| group(rows, g, groups)).collect();
                gradients(&repeated(&x, labels), &e)
            };
            concatenated(&(0..groups).map(of_group).collect::<Vec<_>>())
        }
    }
}

fn repeated(x: &[Dense], labels: usize) -> Vec<Dense> {
    (0..x.len() * labels).map(|r| x[r / labels].clone()).collect()
}

/// A network's batch.
pub struct Network<T> {
    pub layers: Vec<Seen<T>>,
}

impl<T: Element> Network<T> {
    pub fn new(kinds: &[Kind], n: usize, labels: usize, mut draw: impl FnMut(usize, usize) -> Dense) -> Self {
        Network { layers: kinds.iter().map(|&kind| Seen::new(kind, n, labels, &mut draw)).collect() }
    }

    pub fn batch(&self) -> Vec<LayerBatch<'_, T>> {
        self.layers.iter().map(Seen::batch).collect()
    }

    /// `[R, P]`.
    pub fn gradients(&self) -> Dense {
        concatenated(&self.layers.iter().map(|layer| layer.gradients.clone()).collect::<Vec<_>>())
    }

    pub fn magnitudes(&self) -> Dense {
        concatenated(&self.layers.iter().map(|layer| layer.magnitudes.clone()).collect::<Vec<_>>())
    }

    pub fn weights(&self) -> usize {
        self.layers.iter().map(|layer| layer.gradients.cols).sum()
    }

    pub fn rows(&self) -> usize {
        self.layers[0].rows
    }

    /// Roundings of a term in each of the three sums, for a `u` of matrices or of another batch's rows: the most of any layer, one more for each
    /// further layer. A low-rank `u` may be formed first.
    pub fn depths(&self, other: Option<&Network<T>>, par: Par) -> [usize; 3] {
        let mut most = [0; 3];
        for (l, layer) in self.layers.iter().enumerate() {
            let (layer, other) = (layer.kernel(), other.map(|other| other.layers[l].kernel()));
            let formed = other.map_or(0, |other| {
                kernel::sum::depth(&other, None, par) + kernel::dots::low_rank_depth(&layer, &other, par)
            });
            let depths =
                [
                    kernel::dots::depth(&layer, par) + formed,
                    // Of the system in either precision.
                    kernel::gram::depth::<T, T>(&layer, kernel::gram::Form::of(&layer), par)
                        .max(kernel::gram::depth::<T, f64>(&layer, kernel::gram::Form::of(&layer), par)),
                    kernel::sum::depth(&layer, other.as_ref(), par),
                ];
            most = std::array::from_fn(|sum| most[sum].max(depths[sum]));
        }
        most.map(|depth| depth + self.layers.len())
    }

    /// This batch's mean gradient in low rank.
    pub fn low_rank(&self, scale: f64) -> Vec<Direction<'_, T>> {
        let scale = T::from_f64(scale);
        self.layers.iter().map(|layer| Direction::LowRank { batch: layer.batch(), scale }).collect()
    }

    /// The parts of a vector of `P` values.
    pub fn parts<'a>(&self, u: &'a [T]) -> Vec<Direction<'a, T>> {
        let mut rest = u;
        let each = |layer: &Seen<T>| {
            let [o, i] = layer.shape();
            let (part, tail) = rest.split_at(o * i);
            rest = tail;
            Direction::Matrix(MatRef::new(part, [o, i]).expect("the shape"))
        };
        self.layers.iter().map(each).collect()
    }

    pub fn parts_mut<'a>(&self, u: &'a mut [T]) -> Vec<MatMut<'a, T>> {
        let mut rest = u;
        let each = |layer: &Seen<T>| {
            let [o, i] = layer.shape();
            let (part, tail) = core::mem::take(&mut rest).split_at_mut(o * i);
            rest = tail;
            MatMut::new(part, [o, i]).expect("the shape")
        };
        self.layers.iter().map(each).collect()
    }
}

/// Small integers.
pub fn integers(seed: u64, bound: usize) -> impl FnMut(usize, usize) -> Dense {
    let mut random = Random::new(seed);
    move |rows, cols| random.integers(rows, cols, bound)
}

/// Standard normals.
pub fn normals(seed: u64) -> impl FnMut(usize, usize) -> Dense {
    let mut random = Random::new(seed);
    move |rows, cols| random.normals(rows, cols)
}

/// Networks that meet every kind of layer.
pub fn networks() -> Vec<Vec<Kind>> {
    let shared = |i, o, t, bias| Kind::Dense { i, o, t, bias };
    let conv = |c, o, stride, groups, bias| {
        let order = if bias == Bias::With { FeatureOrder::TapsChannel } else { FeatureOrder::ChannelTaps };
        Kind::Conv { c, o, h: 5, w: 6, kernel: 3, stride, groups, bias, order }
    };
    vec![
        vec![Kind::dense(1, 1)],
        vec![Kind::dense(7, 5), Kind::dense(5, 3)],
        vec![shared(4, 3, 1, Bias::With), shared(3, 50, 1, Bias::With), Kind::dense(50, 2)],
        vec![shared(3, 4, 5, Bias::Without), shared(5, 2, 3, Bias::With)],
        vec![shared(9, 8, 7, Bias::With), shared(60, 52, 2, Bias::Without)],
        vec![conv(2, 3, 1, 1, Bias::Without), Kind::dense(6, 3)],
        vec![conv(4, 2, 2, 2, Bias::Without)],
        vec![
            conv(4, 6, 2, 2, Bias::With),
            conv(3, 3, 1, 3, Bias::With),
            shared(4, 4, 2, Bias::With),
            Kind::dense(3, 4),
        ],
        // Wider than a tile, and more positions than one has.
        vec![Kind::dense(300, 260), shared(2, 2, 250, Bias::Without)],
    ]
}
