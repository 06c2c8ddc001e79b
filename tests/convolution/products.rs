//! The layer's own products against their definition: exact on integers over a grid of geometries, within the derived bound on reals.

use super::naive;
use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::conv::product::{
    forward, forward_depth, forward_scratch, input_gradient, input_gradient_depth, input_gradient_scratch,
    weight_gradient, weight_gradient_depth, weight_gradient_scratch,
};
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::{Blend, Element, Input, Par};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};

/// The three products.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Product {
    Forward,
    WeightGradient,
    InputGradient,
}

const PRODUCTS: [Product; 3] = [Product::Forward, Product::WeightGradient, Product::InputGradient];

/// What a convolution of `n` images multiplies: inputs, weights, errors, contiguous.
struct Case {
    conv: Conv,
    n: usize,
    x: Vec<f64>,
    w: Vec<f64>,
    e: Vec<f64>,
}

impl Case {
    fn new(conv: &Conv, n: usize, mut value: impl FnMut() -> f64) -> Case {
        let mut values = |shape: &[usize]| (0..shape.iter().product()).map(|_| value()).collect();
        let (x, w) = (values(&conv.input_shape(n)), values(&conv.weight_shape()));
        Case { conv: *conv, n, x, w, e: values(&conv.output_shape(n)) }
    }

    fn integers(conv: &Conv, n: usize, random: &mut Random) -> Case {
        Case::new(conv, n, || random.integer(3))
    }

    /// Every operand by its magnitude.
    fn abs(&self) -> Case {
        let abs = |values: &[f64]| values.iter().map(|v| v.abs()).collect();
        Case { conv: self.conv, n: self.n, x: abs(&self.x), w: abs(&self.w), e: abs(&self.e) }
    }

    fn expected(&self, product: Product) -> Vec<f64> {
        let Case { conv, n, x, w, e } = self;
        match product {
            Product::Forward => naive::forward(conv, *n, x, w),
            Product::WeightGradient => naive::weight_gradient(conv, *n, e, x),
            Product::InputGradient => naive::input_gradient(conv, *n, e, w),
        }
    }

    fn shape(&self, product: Product) -> Vec<usize> {
        match product {
            Product::Forward => self.conv.output_shape(self.n).to_vec(),
            Product::WeightGradient => self.conv.weight_shape().to_vec(),
            Product::InputGradient => self.conv.input_shape(self.n).to_vec(),
        }
    }

    /// The product of operands in `layout`, blended into `old`, or into poison.
    fn run<I: Input + bytemuck::Pod + num_traits::NumCast>(
        &self,
        product: Product,
        layout: Layout,
        (blend, old): (Blend<I::Acc>, Option<&[f64]>),
        par: Par,
    ) -> Vec<I::Acc> {
        let Case { conv, n, .. } = self;
        let (inputs, outputs) = (conv.input_shape(*n), conv.output_shape(*n));
        let x = Buffer::<I, 5>::embed(&self.x, inputs, layout);
        let w = Buffer::<I, 2>::embed(&self.w, conv.weight_shape(), layout);
        let e = Buffer::<I, 5>::embed(&self.e, outputs, layout);
        let image = |shape| match old {
            None => Buffer::<I::Acc, 5>::poisoned(shape, layout),
            Some(old) => Buffer::embed(old, shape, layout),
        };
        let scratch = match product {
            Product::Forward => forward_scratch::<I::Acc>(*n, conv, par),
            Product::WeightGradient => weight_gradient_scratch::<I::Acc>(*n, conv, par),
            Product::InputGradient => input_gradient_scratch::<I::Acc>(*n, conv, par),
        };
        let mut memory = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut memory);
        let what = format!("{product:?} {conv:?}");
        match product {
            Product::Forward => {
                let mut out = image(outputs);
                forward(out.view_mut(), blend, x.view(), w.view(), conv, par, stack);
                out.assert_margins_intact(&what);
                out.elements()
            }
            Product::InputGradient => {
                let mut out = image(inputs);
                input_gradient(out.view_mut(), blend, e.view(), w.view(), conv, par, stack);
                out.assert_margins_intact(&what);
                out.elements()
            }
            Product::WeightGradient => {
                let mut out = match old {
                    None => Buffer::<I::Acc, 2>::poisoned(conv.weight_shape(), layout),
                    Some(old) => Buffer::embed(old, conv.weight_shape(), layout),
                };
                weight_gradient(out.view_mut(), blend, e.view(), x.view(), conv, par, stack);
                out.assert_margins_intact(&what);
                out.elements()
            }
        }
    }

    /// Integers: every product's bits, on every instruction set and number of threads.
    fn check<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, layout: Layout) {
        for product in PRODUCTS {
            let expected = self.expected(product);
            let what = format!("{product:?} {:?}, {} images, {layout:?}", self.conv, self.n);
            let set = (Blend::set(<I::Acc as Element>::from_f64(1.0)), None);
            for (isa, got) in for_every_par(&what, |par| self.run::<I>(product, layout, set, par)) {
                assert_exact(&row(&got), &row(&expected), &format!("{isa}: {what} {:?}", self.shape(product)));
            }
        }
    }
}

fn row<T: Element>(values: &[T]) -> Dense {
    Dense::from_slice(1, values.len(), values)
}

/// The geometry with each order of features, with a bias and without.
fn variants(conv: Result<Conv, foof_kernels::conv::GeometryError>) -> impl Iterator<Item = Conv> {
    let orders = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel];
    let each = move |conv: Conv| orders.map(|order| conv.with_order(order));
    conv.into_iter().flat_map(move |conv| each(conv).into_iter().chain(each(conv.with_bias())))
}

fn axes() -> impl Iterator<Item = Axis> {
    let kernels = (1..=4).flat_map(|k| (1..=3).map(move |s| (k, s)));
    kernels.flat_map(|(k, s)| {
        let paddings = [[0, 0], [1, 1], [2, 0], [k, k + 1]];
        let sizes = [1, 2, 5, 9];
        let rest = (1..=2).flat_map(move |d| paddings.into_iter().flat_map(move |p| sizes.map(|size| (d, p, size))));
        rest.map(move |(d, p, size)| Axis::new(size, k).stride(s).dilation(d).padding_each(p))
    })
}

#[test]
fn integers_are_exact_for_every_geometry() {
    let mut random = Random::new(1);
    for axis in axes() {
        for conv in variants(Conv::new(3, 5, [axis])) {
            Case::integers(&conv, 2, &mut random).check::<f32>(Layout::RowMajor);
        }
        for conv in variants(Conv::new(2, 3, [axis, Axis::new(4, 3).padding(1)])).step_by(3) {
            Case::integers(&conv, 2, &mut random).check::<f64>(Layout::RowMajor);
        }
        for conv in variants(Conv::new(2, 3, [Axis::new(4, 2).stride(2), axis])).skip(1).step_by(3) {
            Case::integers(&conv, 1, &mut random).check::<f32>(Layout::RowMajor);
        }
    }
}

#[test]
fn integers_are_exact_in_three_dimensions() {
    let mut random = Random::new(2);
    for (size, k) in [(3, 2), (4, 3)] {
        for [s, d, p] in [[1, 1, 1], [2, 1, 1], [3, 2, 2], [2, 2, 3]] {
            let axis = Axis::new(size, k).stride(s).dilation(d).padding(p);
            for conv in variants(Conv::new(3, 2, [axis, Axis::new(5, 3).padding_each([0, 2]), axis])) {
                Case::integers(&conv, 2, &mut random).check::<f32>(Layout::RowMajor);
            }
        }
    }
}

/// Products larger than a tile, a slab and a chunk; images on several threads.
#[test]
fn integers_are_exact_over_tiles_slabs_and_chunks() {
    let mut random = Random::new(3);
    let square = |c, o, size, k: usize| {
        let axis = Axis::new(size, k).padding(k / 2);
        Conv::new(c, o, [axis, axis]).expect("a convolution")
    };
    let strided = |c, o, size, k: usize, s| {
        let axis = Axis::new(size, k).padding(k / 2).stride(s);
        Conv::new(c, o, [axis, axis]).expect("a convolution")
    };
    for conv in [square(1, 32, 28, 3), square(40, 50, 12, 3), square(20, 260, 6, 3), square(300, 7, 5, 1)] {
        Case::integers(&conv.with_bias(), 9, &mut random).check::<f32>(Layout::RowMajor);
    }
    for conv in [strided(32, 64, 14, 3, 2), strided(3, 8, 30, 7, 4)] {
        Case::integers(&conv.with_order(FeatureOrder::TapsChannel), 9, &mut random).check::<f64>(Layout::RowMajor);
        Case::integers(&conv, 9, &mut random).check::<f32>(Layout::RowMajor);
    }
}

#[test]
fn integers_are_exact_with_groups() {
    let mut random = Random::new(4);
    let axis = Axis::new(6, 3).padding(1);
    for groups in [2, 3, 12] {
        for stride in [1, 2] {
            let axes = [axis.stride(stride), axis];
            for conv in variants(Conv::new(12, 24, axes).and_then(|conv| conv.with_groups(groups))) {
                Case::integers(&conv, 3, &mut random).check::<f32>(Layout::RowMajor);
                Case::integers(&conv, 3, &mut random).check::<f32>(Layout::ColumnMajor);
            }
        }
    }
    // Work enough for several threads, each with groups of its own.
    let conv = Conv::new(48, 48, [axis, axis]).and_then(|conv| conv.with_groups(16)).expect("a convolution");
    Case::integers(&conv.with_bias(), 40, &mut random).check::<f32>(Layout::RowMajor);
}

#[test]
fn every_layout_and_input_type_gives_the_same_integers() {
    let mut random = Random::new(5);
    for stride in [1, 2] {
        let axis = Axis::new(7, 3).padding(1).stride(stride);
        for conv in variants(Conv::new(18, 20, [axis, axis])) {
            let case = Case::integers(&conv, 3, &mut random);
            for layout in Layout::ALL {
                case.check::<f32>(layout);
                case.check::<bf16>(layout);
            }
            case.check::<f16>(Layout::RowMajor);
        }
    }
}

#[test]
fn the_output_is_blended() {
    let mut random = Random::new(6);
    for stride in [1, 2, 3] {
        let axis = Axis::new(8, 2).stride(stride);
        let conv = Conv::new(3, 4, [axis, axis]).expect("a convolution").with_bias();
        let case = Case::integers(&conv, 2, &mut random);
        for product in PRODUCTS {
            let expected = case.expected(product);
            let old: Vec<f64> = expected.iter().map(|_| random.integer(5)).collect();
            let blended: Vec<f64> = expected.iter().zip(&old).map(|(new, old)| 2.0 * old - 3.0 * new).collect();
            for par in isas() {
                let blend = Blend { alpha: -3.0, beta: 2.0 };
                let got = case.run::<f64>(product, Layout::RowMajor, (blend, Some(&old)), par);
                assert_exact(&row(&got), &row(&blended), &format!("{product:?}, stride {stride}, {par:?}"));
            }
        }
    }
}

/// `<forward(x), e> = <x, input_gradient(e)> = <w, weight_gradient(e, x)>` in exact arithmetic: three computations of one number, which small
/// integers give exactly.
#[test]
fn gradients_are_adjoint_to_the_layer() {
    let mut random = Random::new(7);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for axis in axes() {
        let Ok(conv) = Conv::new(4, 6, [axis, axis]).and_then(|conv| conv.with_groups(2)) else { continue };
        let case = Case::integers(&conv, 2, &mut random);
        for par in isas() {
            let set = (Blend::set(1.0), None);
            let run = |product| case.run::<f64>(product, Layout::RowMajor, set, par);
            let forward = dot(&run(Product::Forward), &case.e);
            assert_eq!(forward, dot(&run(Product::InputGradient), &case.x), "{conv:?} {par:?}");
            assert_eq!(forward, dot(&run(Product::WeightGradient), &case.w), "{conv:?} {par:?}");
        }
    }
}

fn within_bound<T: Element>(conv: &Conv, n: usize, random: &mut Random) {
    let round = |value: f64| T::from_f64(value).to_f64();
    let case = Case::new(conv, n, || round(random.normal()));
    let magnitudes = case.abs();
    for product in PRODUCTS {
        let (expected, magnitude) = (row(&case.expected(product)), row(&magnitudes.expected(product)));
        let old: Vec<f64> = expected.data.iter().map(|_| round(random.normal())).collect();
        let (alpha, beta) = (round(0.7), round(-1.3));
        let blended = row(&old).scaled(beta).plus(&expected.scaled(alpha));
        let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
        let what = format!("{product:?} {conv:?}");
        let run = |par| case.run::<T>(product, Layout::RowMajor, (blend, Some(&old)), par);
        for (isa, got) in for_every_par(&what, run) {
            let par = Par::seq().with_isa(isa);
            let (depth, inner) = match product {
                Product::Forward => (forward_depth::<T>(n, conv, par), conv.factor_size()),
                Product::WeightGradient => (weight_gradient_depth::<T>(n, conv, par), n * conv.positions()),
                Product::InputGradient => {
                    (input_gradient_depth::<T>(n, conv, par), conv.out_channels() / conv.groups() * conv.taps())
                }
            };
            // The portable path rounds each product too: one more than the chain of additions.
            let bound =
                bounds::blended_product(Format::of::<T>(), &magnitude, (alpha, beta), &row(&old), inner, depth + 1);
            assert_within(&row(&got), &blended, &bound, &format!("{isa}: {what}"));
        }
    }
}

#[test]
fn reals_are_within_the_bound() {
    let mut random = Random::new(8);
    for (c, o, size, k, s, groups) in
        [(3, 8, 9, 3, 1, 1), (16, 24, 10, 3, 2, 1), (12, 12, 8, 5, 1, 4), (70, 40, 6, 3, 1, 1), (4, 260, 13, 2, 3, 2)]
    {
        let axis = Axis::new(size, k).padding(k / 2).stride(s);
        let conv = Conv::new(c, o, [axis, axis]).and_then(|conv| conv.with_groups(groups)).expect("a convolution");
        within_bound::<f32>(&conv.with_bias(), 5, &mut random);
        within_bound::<f64>(&conv, 5, &mut random);
    }
    let axis = Axis::new(28, 3).padding(1);
    within_bound::<f32>(&Conv::new(2, 16, [axis, axis]).expect("a convolution"), 12, &mut random);
}

#[test]
fn no_images_are_no_work() {
    let conv = Conv::new(2, 3, [Axis::new(4, 3)]).expect("a convolution").with_bias();
    let case = Case::new(&conv, 0, || 1.0);
    for par in isas() {
        let set = (Blend::set(1.0f32), None);
        assert!(case.run::<f32>(Product::Forward, Layout::RowMajor, set, par).is_empty());
        assert!(case.run::<f32>(Product::InputGradient, Layout::RowMajor, set, par).is_empty());
        let zeros = case.run::<f32>(Product::WeightGradient, Layout::RowMajor, set, par);
        assert!(zeros.len() == 21 && zeros.iter().all(|&v| v == 0.0), "{zeros:?}");
    }
}
