//! Convolutions observed as images: as the same layers unfolded, group by group.

use crate::batch::{Owned, averaged_moments, averaged_squares, entry, exact_damping_of, never, preconditioned};
use crate::convolution::{Block, check};
use foof::convolution::{Axis, Conv, FeatureOrder};
use foof::covariance::Centring;
use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{
    Activations, Ekfac, EkfacOptions, Foof, FoofDamping, FoofOptions, FoofScale, Kfac, KfacDamping, KfacOptions,
    Observation, Optimizer, Preconditioner,
};
use foof::{Element, Error, Par, Sharing, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::Format;
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_close, assert_exact};
use foof_oracle::kernels::isas;
use foof_oracle::unfold::{Convolution, Order, group, positions_first};
use foof_oracle::{Dense, Random, fisher, rounded};
use half::bf16;

/// A mini-batch of a convolution, with some labels for each image.
struct Batch {
    conv: Conv,
    n: usize,
    x: Vec<f64>,
    e: Vec<f64>,
}

impl Batch {
    fn new(conv: Conv, [n, labels]: [usize; 2], mut value: impl FnMut() -> f64) -> Self {
        let mut values = |len: usize| (0..len).map(|_| value()).collect();
        let x = values(conv.input_shape(n).iter().product());
        let e = values(conv.output_shape(n * labels).iter().product());
        Batch { conv, n, x, e }
    }

    fn labels(&self) -> usize {
        self.e.len() / self.conv.output_shape(self.n).iter().product::<usize>()
    }

    /// Patches and errors of each datapoint in one group.
    fn unfolded(&self, g: usize) -> [Vec<Dense>; 2] {
        let (conv, axes) = (&self.conv, self.conv.axes3());
        let oracle = Convolution {
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
        let x = oracle.unfold(&self.x, conv.in_channels(), axes.map(|axis| axis.size), g, order);
        let image = conv.output_shape(1).iter().product();
        let e = self.e.chunks_exact(image).map(|e| group(&positions_first(e, conv.out_channels()), g, conv.groups()));
        [x, e.collect()]
    }

    /// A layer for each group.
    fn layers(&self, sharing: Sharing) -> Vec<Layer> {
        let conv = &self.conv;
        let layer = Layer::dense(conv.features(), conv.out_channels() / conv.groups()).expect("sizes");
        let layer = layer.with_positions(conv.positions()).expect("positions").with_sharing(sharing);
        vec![if conv.bias() == foof::Bias::With { layer.with_bias() } else { layer }; conv.groups()]
    }

    /// The rows of each group's layer.
    fn rows<T: Element>(&self) -> Vec<[Owned<T>; 2]> {
        let groups = 0..self.conv.groups();
        groups.map(|g| self.unfolded(g).map(|side| Owned::new(&fisher::stacked(&side)))).collect()
    }

    /// `f` with the images as an optimiser takes them, of the convolution's rank.
    fn observe<T: Element, P: Preconditioner<T>>(&self, optimizer: &mut Optimizer<T, P>) {
        let [x, e] = [&self.x, &self.e].map(|values| values.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>());
        let (inputs, outputs) = (self.conv.input_shape(self.n), self.conv.output_shape(self.n * self.labels()));
        let seen = Observation::new(images(&x, inputs, &self.conv)).with_errors(images(&e, outputs, &self.conv));
        optimizer.observe(&[seen]).expect("finite");
    }

    /// The same with inputs of half width and channels last in memory.
    fn observe_half<P: Preconditioner<f32>>(&self, optimizer: &mut Optimizer<f32, P>) {
        let e: Vec<f32> = self.e.iter().map(|&v| v as f32).collect();
        let [n, c, z, y, w] = self.conv.input_shape(self.n);
        let (pixels, mut x) = (z * y * w, vec![bf16::ZERO; self.x.len()]);
        for (k, &v) in self.x.iter().enumerate() {
            let (image, channel, pixel) = (k / (c * pixels), k / pixels % c, k % pixels);
            x[(image * pixels + pixel) * c + channel] = bf16::from_f64(v);
        }
        let outputs = images(&e, self.conv.output_shape(n * self.labels()), &self.conv);
        let seen = match self.conv.axes().len() {
            1 => Observation::new(View::new(&x, [n, w, c]).expect("a view").channels_last()),
            2 => Observation::new(View::new(&x, [n, y, w, c]).expect("a view").channels_last()),
            _ => Observation::new(View::new(&x, [n, z, y, w, c]).expect("a view").channels_last()),
        };
        optimizer.observe(&[seen.with_errors(outputs)]).expect("finite");
    }

    fn observe_rows<T: Element, P: Preconditioner<T>>(&self, optimizer: &mut Optimizer<T, P>) {
        let rows = self.rows::<T>();
        let seen: Vec<_> = rows.iter().map(|[x, e]| Observation::new(x.view()).with_errors(e.view())).collect();
        optimizer.observe(&seen).expect("finite");
    }
}

fn images<'a, T: Element>(values: &'a [T], [n, c, z, y, x]: [usize; 5], conv: &Conv) -> Activations<'a, T> {
    match conv.axes().len() {
        1 => View::new(values, [n, c, x]).expect("a view").into(),
        2 => View::new(values, [n, c, y, x]).expect("a view").into(),
        _ => View::new(values, [n, c, z, y, x]).expect("a view").into(),
    }
}

/// Prefix of the entries of a group.
fn prefix(conv: &Conv, g: usize) -> String {
    if conv.groups() > 1 { format!("layer.0.group.{g}") } else { "layer.0".into() }
}

/// 16 outputs, so that means over them are exact: every rank, groups, depthwise with a multiplier, orders, strides, dilation.
fn geometries() -> Vec<Conv> {
    let axis = Axis::new(4, 3).padding(1);
    let strided = Axis::new(8, 3).padding_each([0, 1]).stride(2);
    let conv = |c, o, axes| Conv::new(c, o, axes).expect("a convolution");
    let grouped = |conv: Conv, groups| conv.with_groups(groups).expect("groups");
    vec![
        conv(3, 4, [axis, axis]),
        conv(3, 20, [axis, axis]).with_bias(),
        grouped(conv(4, 6, [strided, axis]), 2).with_bias().with_order(FeatureOrder::TapsChannel),
        grouped(conv(3, 6, [axis, axis]), 3).with_bias(),
        Conv::new(2, 3, [Axis::new(18, 2).dilation(2)]).expect("a convolution").with_bias(),
        Conv::new(2, 3, [Axis::new(2, 2).padding_each([0, 1]), Axis::new(4, 3).padding(1), Axis::new(2, 1)])
            .expect("a convolution"),
    ]
}

/// Integers: running factors, what a refresh makes of them, and `D` have the bits of the unfolded layers.
fn same_bits<P: Preconditioner<f32>>(
    make: impl Fn(&[Layer]) -> Optimizer<f32, P>,
    conv: Conv,
    sharing: Sharing,
    what: &str,
) {
    let mut random = Random::new(3);
    let batches = [[4, 1], [8, 2]].map(|shape| Batch::new(conv, shape, || random.integer(2)));
    let mut unfolded = make(&batches[0].layers(sharing));
    let mut optimizer = make(&[Layer::conv(conv).with_sharing(sharing)]);
    for batch in &batches {
        batch.observe_rows(&mut unfolded);
    }
    batches[0].observe(&mut optimizer);
    batches[1].observe_half(&mut optimizer);
    unfolded.refresh().expect("a refresh");
    optimizer.refresh().expect("a refresh");
    let blocks = |optimizer: &Optimizer<f32, P>| -> Vec<Vec<f32>> {
        optimizer.preconditioner().entries().into_iter().map(|(.., values)| values.to_vec()).collect()
    };
    assert_eq!(blocks(&optimizer).concat(), blocks(&unfolded).concat(), "{what}: state");
    let u = Owned::<f32>::new(&random.integers(conv.out_channels(), conv.factor_size(), 3));
    let parts: Vec<_> =
        fisher::datapoints(&u.dense(), conv.out_channels() / conv.groups()).iter().map(Owned::<f32>::new).collect();
    let parts: Vec<_> = parts.iter().map(|part| Gradient::Matrix(part.view())).collect();
    let want = fisher::stacked(&preconditioned(&mut unfolded, &parts));
    let got = preconditioned(&mut optimizer, &[Gradient::Matrix(u.view())]).remove(0);
    assert_exact(&got, &want, &format!("{what}: D"));
}

#[test]
fn integers_as_unfolded_layers() {
    let (factor_decay, schedule) = (0.5, never());
    for conv in geometries() {
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            for par in isas() {
                let what = |method: &str| format!("{par:?}: {method}, {sharing:?}, {conv:?}");
                for (damping_rule, scale) in [
                    (FoofDamping::Fixed, FoofScale::Own),
                    (FoofDamping::KfacLambdaA, FoofScale::LambdaA),
                    (FoofDamping::KfacLambdaA, FoofScale::KfacNorm),
                ] {
                    let options = FoofOptions { damping_rule, scale, factor_decay, schedule, ..Default::default() };
                    let make = |layers: &[Layer]| Foof::<f32>::new(layers, options, par).expect("valid options");
                    same_bits(make, conv, sharing, &what(&format!("FOOF, {scale:?}")));
                }
                for damping_rule in [KfacDamping::Heuristic, KfacDamping::Exact] {
                    let options = KfacOptions { damping_rule, factor_decay, schedule, ..Default::default() };
                    let make = |layers: &[Layer]| Kfac::<f32>::new(layers, options, par).expect("valid options");
                    same_bits(make, conv, sharing, &what(&format!("K-FAC, {damping_rule:?}")));
                }
                let options = EkfacOptions { factor_decay, schedule, ..Default::default() };
                let make = |layers: &[Layer]| Ekfac::<f32>::new(layers, options, par).expect("valid options");
                same_bits(make, conv, sharing, &what("EK-FAC"));
            }
        }
    }
}

/// `m M + (1-m) mean_n (Q_B^T G_n Q_A)²` in either order of its products: the larger error of the two.
fn moments(old: &Approx, [x, e]: &[Vec<Dense>; 2], [q_a, q_b]: [&Approx; 2], m: f64) -> Approx {
    let (labels, exact) = (e.len() / x.len(), |dense: &Dense| Approx::exact(dense.clone(), old.format));
    let gradients = e
        .iter()
        .enumerate()
        .map(|(row, e)| exact(e).matmul(q_b).transpose().matmul(&exact(&x[row / labels])).matmul(q_a));
    let gradients = averaged_squares(old, gradients.collect(), labels, m);
    let rows = averaged_moments(old, (x, e), [q_a, q_b], m);
    let error = rows.error.max(gradients.error);
    rows.with_error(error)
}

fn with_bias(conv: &Conv, [x, e]: [Vec<Dense>; 2]) -> [Vec<Dense>; 2] {
    if conv.bias() == foof::Bias::With { [fisher::with_one(&x), e] } else { [x, e] }
}

fn ekfac_moments<T: Element>(conv: Conv, shape: [usize; 2]) {
    let m = 0.5;
    let mut random = Random::new(5);
    let [first, second] =
        [[6, 1], shape].map(|shape| Batch::new(conv, shape, || T::from_f64(random.normal()).to_f64()));
    for par in isas() {
        let options = EkfacOptions { factor_decay: m, schedule: never(), ..Default::default() };
        let mut optimizer = Ekfac::<T>::new(&[Layer::conv(conv)], options, par).expect("valid options");
        first.observe(&mut optimizer);
        optimizer.refresh().expect("converges");
        let before = entry(&optimizer, "layer.0.moments");
        second.observe(&mut optimizer);
        let after = entry(&optimizer, "layer.0.moments");
        let rows = conv.out_channels() / conv.groups();
        for g in 0..conv.groups() {
            let exact = |dense: Dense| Approx::exact(dense, Format::of::<T>());
            let [q_a, q_b] =
                ["input", "error"].map(|side| exact(entry(&optimizer, &format!("{}.{side}.used", prefix(&conv, g)))));
            let part = |all: &Dense| all.block(g * rows..(g + 1) * rows, 0..all.cols);
            let seen = with_bias(&conv, second.unfolded(g));
            let derived = moments(&exact(part(&before)), &seen, [&q_a, &q_b], m);
            derived.assert_matches(&part(&after), &format!("{par:?}: group {g} of {conv:?}, {shape:?}"));
        }
    }
}

/// Each geometry, with fewer positions than outputs and with more, and labels; batches of several blocks.
#[test]
fn ekfac_moments_of_images() {
    for conv in geometries() {
        ekfac_moments::<f64>(conv, [5, 1]);
        ekfac_moments::<f32>(conv, [3, 3]);
    }
    let wide = |size: usize, c, o| {
        let axis = Axis::new(size, 3).padding(1);
        Conv::new(c, o, [axis, axis]).expect("a convolution").with_bias()
    };
    ekfac_moments::<f32>(wide(8, 8, 32), [121, 1]);
    ekfac_moments::<f32>(wide(4, 8, 32), [290, 1]);
}

/// The golden network's layers as images: the steps that the unfolded ones take.
#[test]
fn golden_steps_of_images() {
    let case = Case::load("cnn");
    let convolutions = case.layers.iter().enumerate().filter_map(|(l, geometry)| geometry.map(|g| (l, g)));
    let mut count = 0;
    for (l, geometry) in convolutions {
        count += 1;
        let (inputs, outputs) = (case.golden.shape(&format!("input.{l}")), case.golden.shape(&format!("error_mc.{l}")));
        let axis = |axis: usize| Axis {
            size: inputs[1 + axis],
            kernel: geometry.kernel[axis],
            stride: geometry.stride[axis],
            dilation: geometry.dilation[axis],
            padding: geometry.padding[axis],
        };
        let conv = Conv::new(inputs[1], outputs[1], [axis(1), axis(2)]).expect("a convolution");
        let conv = conv.with_groups(geometry.groups).expect("groups");
        let [x, e] = ["input", "error_mc"].map(|name| case.golden.values(&format!("{name}.{l}")));
        let batch = Batch { conv, n: inputs[0], x, e };
        for par in isas() {
            golden_layer(&batch, &case, l, par);
        }
    }
    assert_eq!(count, 3);
}

fn golden_layer(batch: &Batch, case: &Case, l: usize, par: Par) {
    let (lambda, schedule, factor_decay, conv) = (case.lambda, never(), 0.0, &batch.conv);
    let layers = [Layer::conv(*conv)];
    let u = Owned::<f64>::new(&fisher::stacked(&case.like_weight("gradient", l)));
    let gradient = [Gradient::Matrix(u.view())];
    let options = FoofOptions { damping: lambda, factor_decay, schedule, ..Default::default() };
    let mut foof = Foof::<f64>::new(&layers, options, par).expect("valid options");
    let options = KfacOptions { damping: lambda, factor_decay, schedule, ..Default::default() };
    let mut kfac = Kfac::<f64>::new(&layers, options, par).expect("valid options");
    let options = KfacOptions { damping_rule: KfacDamping::Exact, ..options };
    let mut exact = Kfac::<f64>::new(&layers, options, par).expect("valid options");
    let options = EkfacOptions { damping: lambda, factor_decay, schedule, ..Default::default() };
    let mut ekfac = Ekfac::<f64>::new(&layers, options, par).expect("valid options");
    fn stepped<P: Preconditioner<f64>>(
        batch: &Batch,
        optimizer: &mut Optimizer<f64, P>,
        gradient: &[Gradient<'_, f64>],
    ) -> Dense {
        batch.observe(optimizer);
        optimizer.refresh().expect("a refresh");
        preconditioned(optimizer, gradient).remove(0)
    }
    let found = [
        stepped(batch, &mut foof, &gradient),
        stepped(batch, &mut kfac, &gradient),
        stepped(batch, &mut exact, &gradient),
    ];
    stepped(batch, &mut ekfac, &gradient);
    batch.observe(&mut ekfac);
    let with_moments = preconditioned(&mut ekfac, &gradient).remove(0);
    for g in 0..conv.groups() {
        let (block, what) = (Block::new(l, g), format!("{par:?}: layer {l}, group {g}"));
        let exactly = |rows: &[Dense]| Approx::exact_f64(fisher::stacked(rows));
        let (n, u) = (block.x.len(), Approx::exact_f64(block.u.clone()));
        let a = rounded::second_moment(&exactly(&block.x), n);
        let b = rounded::second_moment(&exactly(&block.e), n * block.positions());
        let rows = block.u.rows;
        let part = |all: &Dense| all.block(g * rows..(g + 1) * rows, 0..all.cols);
        let [got_foof, got_kfac, got_exact] = found.each_ref().map(part);
        check(&rounded::foof_step(&u, &a, lambda), &block, &got_foof, "foof", &what);
        check(&rounded::kfac_heuristic_step(&u, &a, &b, lambda), &block, &got_kfac, "kfac_heuristic", &what);
        let derived = exact_damping_of(&exact, &prefix(conv, g), [&u, &a, &b], lambda);
        check(&derived, &block, &got_exact, "kfac_exact", &what);
        let [q_a, q_b] = ["input", "error"]
            .map(|side| Approx::exact_f64(entry(&ekfac, &format!("{}.{side}.used", prefix(conv, g)))));
        let none = Approx::exact_f64(Dense::zeros(rows, block.u.cols));
        let moments = moments(&none, &[block.x.clone(), block.e.clone()], [&q_a, &q_b], 0.0);
        let divided = q_b.transpose().matmul(&u).matmul(&q_a).divided_by_damped(&moments, lambda);
        let derived = q_b.matmul(&divided).matmul(&q_a.transpose());
        derived.assert_matches(&part(&with_moments), &format!("{what}: EK-FAC"));
    }
}

/// Large enough for several threads to share each of its products: the whole state has the same bytes.
#[test]
fn numbers_of_threads_of_images() {
    let axis = Axis::new(8, 3).padding(1);
    for (c, groups, shape) in [(16, 1, [40, 1]), (32, 2, [40, 2]), (32, 32, [20, 1])] {
        let conv = Conv::new(c, 32, [axis, axis]).expect("a convolution").with_groups(groups).expect("groups");
        let mut random = Random::new(9);
        let batch = Batch::new(conv, shape, || random.normal());
        let state = |par: Par| {
            let options = EkfacOptions { schedule: never(), ..Default::default() };
            let mut optimizer = Ekfac::<f32>::new(&[Layer::conv(conv)], options, par).expect("valid options");
            batch.observe(&mut optimizer);
            optimizer.refresh().expect("converges");
            batch.observe(&mut optimizer);
            optimizer.save().expect("a file")
        };
        let one = state(Par::seq());
        for threads in [2, 3] {
            assert!(state(Par::threads(threads)) == one, "{threads} threads, {groups} groups");
        }
    }
}

#[test]
fn states_of_convolutions() {
    let axis = Axis::new(5, 3).padding(1);
    let conv = Conv::new(4, 6, [axis, axis]).expect("a convolution").with_groups(2).expect("groups").with_bias();
    let make = |conv: Conv, sharing| {
        let layers = [Layer::conv(conv).with_sharing(sharing)];
        Ekfac::<f32>::new(&layers, EkfacOptions { schedule: never(), ..Default::default() }, Par::seq())
            .expect("options")
    };
    let mut random = Random::new(11);
    let batch = Batch::new(conv, [3, 1], || random.normal());
    let mut one = make(conv, Sharing::Expand);
    batch.observe(&mut one);
    one.refresh().expect("converges");
    batch.observe(&mut one);
    let saved = one.save().expect("a file");
    let mut names: Vec<String> = one.preconditioner().entries().into_iter().map(|(name, ..)| name).collect();
    names.retain(|name| name.ends_with("used"));
    let group = |g: usize, side: &str| format!("layer.0.group.{g}.{side}.used");
    assert_eq!(names, [group(0, "input"), group(1, "input"), group(0, "error"), group(1, "error")]);
    let mut other = make(conv, Sharing::Expand);
    other.load(&saved).expect("the same optimiser");
    assert!(other.save().expect("a file") == saved);
    batch.observe(&mut one);
    batch.observe(&mut other);
    assert!(other.save().expect("a file") == one.save().expect("a file"), "resumed");
    // Geometries whose factors have the same shapes, and a dense layer's settings.
    let stride = Conv::new(4, 6, [axis, axis.stride(2)]).expect("a convolution");
    let stride = stride.with_groups(2).expect("groups").with_bias();
    let order = conv.with_order(FeatureOrder::TapsChannel);
    for (conv, sharing) in [(stride, Sharing::Expand), (order, Sharing::Expand), (conv, Sharing::Reduce)] {
        let mut wrong = make(conv, sharing);
        let before = wrong.save().expect("a file");
        match wrong.load(&saved) {
            Err(Error::State { entry, .. }) => assert_eq!(entry, "layer.0"),
            other => panic!("{other:?}"),
        }
        assert!(wrong.save().expect("a file") == before, "as it was");
    }
}

/// The metric of a grouped convolution is the sum of its groups'.
#[test]
fn metric_of_groups() {
    let conv = Conv::new(2, 4, [Axis::new(4, 2)]).expect("a convolution").with_groups(2).expect("groups");
    let mut random = Random::new(13);
    let batch = Batch::new(conv, [4, 1], || random.integer(2));
    let options = FoofOptions { factor_decay: 0.0, schedule: never(), ..Default::default() };
    let mut foof = Foof::<f64>::new(&[Layer::conv(conv)], options, Par::seq()).expect("valid options");
    batch.observe(&mut foof);
    let [a, b] = [0, 1].map(|_| Owned::<f64>::new(&random.integers(4, 2, 3)));
    let product = |a: &Dense, b: &Dense| -> f64 {
        let group = |g: usize| {
            let factor = fisher::input_factor(&batch.unfolded(g)[0], fisher::Sharing::Expand);
            let [a, b] = [a, b].map(|m| m.block(2 * g..2 * g + 2, 0..2));
            let damped = Dense::from_fn(2, 2, |i, j| factor[(i, j)] + if i == j { 1.0 } else { 0.0 });
            a.matmul(&damped).matmul(&b.transpose())
        };
        (0..2).map(group).map(|m| m[(0, 0)] + m[(1, 1)]).sum()
    };
    let (da, db) = (a.dense(), b.dense());
    let want = product(&da, &db) / (product(&da, &da).sqrt() * product(&db, &db).sqrt());
    let got = foof.metric_cosine(0, a.view(), b.view(), 1.0).expect("shapes agree");
    // The sums are of dyadic numbers, and exact; two roots, a product and a quotient.
    let [got, want] = [got, want].map(|v| Dense::from_slice(1, 1, &[v]));
    assert_close(&got, &want, 2.0 * Format::of::<f64>().gamma(4), "the cosine");
    let centred = FoofOptions { centring: Centring::Centred, ..Default::default() };
    let error = Foof::<f64>::new(&[Layer::conv(conv)], centred, Par::seq()).err().expect("refused");
    assert!(
        matches!(&error, Error::Layer { layer: 0, source } if matches!(**source, Error::Parameter { name: "centring", .. }))
    );
}
