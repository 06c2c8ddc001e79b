//! What a layer saw of a mini-batch, and how its rows become operands.

use super::scales::{Scaled, Scales};
use crate::conv::patches::{Index, Patches};
use crate::conv::{Conv, FeatureOrder};
use crate::covariance::Bias;
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::pack::{PIECE, Pack, Strided, Widened, WithOne, WithOneDepth};
use crate::engine::slab::Rows as Unpacked;
use crate::isa::Isa;
use crate::view::View;
use core::ops::Range;

/// Inputs and errors of a layer: `N` datapoints of inputs and `R = N C` of errors, `C` for each (labels), one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    kind: Kind<'a, T>,
    bias: Bias,
    scales: Option<Scales<'a, T>>,
}

// Views are copied, and a box would allocate.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
enum Kind<'a, T> {
    Shared { x: View<'a, T, 3>, e: View<'a, T, 3> },
    Conv { x: View<'a, T, 5>, e: View<'a, T, 5>, conv: Conv },
}

impl<'a, T: Element> Layer<'a, T> {
    /// `x` `[N, T, i]` and `e` `[R, T, o]`.
    ///
    /// # Panics
    /// If positions differ, or `R` is not a positive multiple of `N`.
    pub fn shared(x: View<'a, T, 3>, e: View<'a, T, 3>, bias: Bias) -> Self {
        assert!(x.shape()[1] == e.shape()[1], "woodbury: positions of inputs and errors differ");
        Layer { kind: Kind::Shared { x, e }, bias, scales: None }.checked()
    }

    /// Images `x` `[N, C, Z, Y, X]` and `e` `[R, o, Z', Y', X']`.
    ///
    /// # Panics
    /// If the shapes are not the geometry's, or `R` is not a positive multiple of `N`.
    pub fn conv(x: View<'a, T, 5>, e: View<'a, T, 5>, conv: Conv) -> Self {
        assert_eq!(x.shape(), conv.input_shape(x.shape()[0]), "woodbury: the inputs' shape");
        assert_eq!(e.shape(), conv.output_shape(e.shape()[0]), "woodbury: the errors' shape");
        Layer { kind: Kind::Conv { x, e, conv }, bias: conv.bias(), scales: None }.checked()
    }

    /// With feature `j` of every datapoint, position and group times `scales[j]`, the constant of a bias too, while rows are packed: one
    /// rounding of each.
    ///
    /// # Panics
    /// If there is not one for each column of the weights.
    pub fn with_scales(self, scales: &'a [T]) -> Self {
        assert_eq!(scales.len(), self.weight_shape()[1], "woodbury: scales of other features");
        Layer { scales: Some(Scales::new(scales)), ..self }
    }

    fn checked(self) -> Self {
        let (n, r) = (self.datapoints(), self.rows());
        assert!(n > 0 && r > 0 && r.is_multiple_of(n), "woodbury: {r} rows of errors for {n} datapoints");
        self
    }

    /// `N`.
    pub fn datapoints(&self) -> usize {
        match self.kind {
            Kind::Shared { x, .. } => x.shape()[0],
            Kind::Conv { x, .. } => x.shape()[0],
        }
    }

    /// `R`.
    pub fn rows(&self) -> usize {
        match self.kind {
            Kind::Shared { e, .. } => e.shape()[0],
            Kind::Conv { e, .. } => e.shape()[0],
        }
    }

    /// `C`.
    pub fn labels(&self) -> usize {
        self.rows() / self.datapoints()
    }

    /// `T`.
    pub fn positions(&self) -> usize {
        match self.kind {
            Kind::Shared { x, .. } => x.shape()[1],
            Kind::Conv { conv, .. } => conv.positions(),
        }
    }

    /// Groups of channels, each a block of the weights' rows.
    pub fn groups(&self) -> usize {
        match self.kind {
            Kind::Shared { .. } => 1,
            Kind::Conv { conv, .. } => conv.groups(),
        }
    }

    /// `[o, i]`, of the weights, a bias counted among `i`.
    pub fn weight_shape(&self) -> [usize; 2] {
        match self.kind {
            Kind::Shared { x, e } => [e.shape()[2], x.shape()[2] + self.bias.columns()],
            Kind::Conv { conv, .. } => conv.weight_shape(),
        }
    }

    /// Inputs and errors as they are.
    pub fn tensors(&self) -> [Tensor<'a, T>; 2] {
        match self.kind {
            Kind::Shared { x, e } => [x, e].map(Tensor::Rows),
            Kind::Conv { x, e, .. } => [x, e].map(Tensor::Images),
        }
    }

    /// One group.
    pub(crate) fn block(&self, group: usize) -> Block<'a, T> {
        let [o, _] = self.weight_shape();
        let o = o / self.groups();
        let part = |channels: usize| group * channels..(group + 1) * channels;
        let (x, e) = match self.kind {
            Kind::Shared { x, e } => (Rows::Features(x), Rows::Features(e)),
            Kind::Conv { x, e, conv } => {
                let x = x.channels(part(conv.in_channels() / conv.groups()));
                (Rows::Patches(x, conv), Rows::Pixels(e.channels(part(o))))
            }
        };
        Block {
            x,
            e,
            bias: self.bias,
            scales: self.scales,
            first: group * o,
            o,
            i: self.weight_shape()[1],
            datapoints: self.datapoints(),
            labels: self.labels(),
            positions: self.positions(),
        }
    }

    /// All groups.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block<'a, T>> {
        let layer = *self;
        (0..layer.groups()).map(move |group| layer.block(group))
    }
}

/// A tensor of a layer.
#[derive(Clone, Copy, Debug)]
pub enum Tensor<'a, T> {
    /// `[N, T, d]`
    Rows(View<'a, T, 3>),
    /// `[N, C, Z, Y, X]`
    Images(View<'a, T, 5>),
}

/// One group of a layer: rows of inputs and errors that share a block of the weights.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, T> {
    x: Rows<'a, T>,
    e: Rows<'a, T>,
    bias: Bias,
    scales: Option<Scales<'a, T>>,
    /// The first row of the weights, and how many.
    first: usize,
    pub(crate) o: usize,
    /// With the bias.
    pub(crate) i: usize,
    pub(crate) datapoints: usize,
    pub(crate) labels: usize,
    pub(crate) positions: usize,
}

impl<'a, T: Element> Block<'a, T> {
    /// Rows of the weights.
    pub(crate) fn outputs(&self) -> Range<usize> {
        self.first..self.first + self.o
    }

    /// `R`
    pub(crate) fn rows(&self) -> usize {
        self.datapoints * self.labels
    }

    /// Whether packing makes an operand much larger than it is: then none is packed whole.
    pub(crate) fn streamed(&self) -> bool {
        matches!(self.x, Rows::Patches(..))
    }

    /// The geometry of a convolution.
    pub(crate) fn conv(&self) -> Option<&Conv> {
        match &self.x {
            Rows::Patches(_, conv) => Some(conv),
            _ => None,
        }
    }

    /// With the features of a convolution by tap, then channel, which is how patches pack best.
    pub(crate) fn by_tap(self) -> Self {
        match self.x {
            Rows::Patches(x, conv) => {
                let scales = self.scales.map(|scales| scales.by_tap(&conv));
                Block { x: Rows::Patches(x, conv.with_order(FeatureOrder::TapsChannel)), scales, ..self }
            }
            _ => self,
        }
    }

    /// The inputs, with the constant 1 of a bias.
    pub(crate) fn inputs(&self, index: Index) -> Loader<'a, T> {
        self.scaled(self.x, index)
    }

    /// Rows of inputs, scaled where the layer's are.
    fn scaled(&self, x: Rows<'a, T>, index: Index) -> Loader<'a, T> {
        Loader { scaled: self.scales.map(|scales| Scaled::new(scales, index)), ..x.loader(index, self.bias) }
    }

    /// The errors of all rows.
    pub(crate) fn errors(&self, index: Index) -> Loader<'a, T> {
        self.e.loader(index, Bias::Without)
    }

    /// The errors of one label of each datapoint.
    pub(crate) fn errors_of(&self, label: usize, index: Index) -> Loader<'a, T> {
        self.e.some(label, self.labels, self.datapoints).loader(index, Bias::Without)
    }

    /// Inputs and errors of row `row` alone, for a product in any precision.
    pub(crate) fn row(&self, row: usize, index: Index, isa: Isa) -> [Widened<T, Loader<'a, T>>; 2] {
        let x = self.scaled(self.x.some(row / self.labels, 1, 1), index);
        [x, self.e.some(row, 1, 1).loader(index, Bias::Without)].map(|operand| Widened::new(operand, isa))
    }

    /// Inputs and errors of all rows, for a product in any precision.
    pub(crate) fn both(&self, index: Index, isa: Isa) -> [Widened<T, Loader<'a, T>>; 2] {
        [self.inputs(index), self.errors(index)].map(|operand| Widened::new(operand, isa))
    }
}

/// Rows, one for each datapoint and position.
#[derive(Clone, Copy)]
enum Rows<'a, T> {
    /// `[N, T, d]`
    Features(View<'a, T, 3>),
    /// Pixels of images.
    Pixels(View<'a, T, 5>),
    /// Patches of images, the channels of one group.
    Patches(View<'a, T, 5>, Conv),
}

impl<'a, T: Element> Rows<'a, T> {
    /// `count` datapoints, `step` apart from `first` on.
    fn some(self, first: usize, step: usize, count: usize) -> Self {
        match self {
            Rows::Features(x) => Rows::Features(some(x, first, step, count)),
            Rows::Pixels(x) => Rows::Pixels(some(x, first, step, count)),
            Rows::Patches(x, conv) => Rows::Patches(some(x, first, step, count), conv),
        }
    }

    /// With rows as depth ([`Index::Features`]) or as indices ([`Index::Outputs`]).
    fn loader(self, index: Index, bias: Bias) -> Loader<'a, T> {
        let one = (bias == Bias::With).then_some(index);
        let inner = match (self, index) {
            (Rows::Features(x), Index::Features) => Inner::Strided(Strided::expand(x)),
            (Rows::Features(x), Index::Outputs) => match x.rows() {
                Some(rows) => Inner::Strided(Strided::rows(rows)),
                None => Inner::Patches(Patches::samples(pixels(x), index)),
            },
            (Rows::Pixels(x), _) => Inner::Patches(Patches::samples(x, index)),
            (Rows::Patches(x, conv), _) => Inner::Patches(Patches::new(x, &conv, index)),
        };
        Loader { inner, one, scaled: None }
    }
}

/// Every `step`-th of the first axis.
fn some<T, const R: usize>(x: View<'_, T, R>, first: usize, step: usize, count: usize) -> View<'_, T, R> {
    let (mut shape, mut strides, mut start) = (x.shape(), x.strides(), [0; R]);
    assert!(count > 0 && first + (count - 1) * step < shape[0], "woodbury: datapoints outside the batch");
    (shape[0], start[0]) = (count, first);
    strides[0] *= step as isize;
    // SAFETY: a part of the elements.
    unsafe { x.reshaped(start, shape, strides) }
}

/// `[N, T, d]` as images of `d` channels and `T` pixels.
fn pixels<T>(x: View<'_, T, 3>) -> View<'_, T, 5> {
    let ([n, t, d], [ns, ts, ds]) = (x.shape(), x.strides());
    // SAFETY: the same elements, and axes of size one.
    unsafe { x.reshaped([0; 3], [n, d, 1, 1, t], [ns, ds, 0, 0, ts]) }
}

/// Rows as an operand.
pub(crate) struct Loader<'a, T: Element> {
    inner: Inner<'a, T>,
    /// Where the constant 1 is: one more index, or one more depth.
    one: Option<Index>,
    scaled: Option<Scaled<'a, T>>,
}

enum Inner<'a, T: Element> {
    Strided(Strided<'a, T>),
    Patches(Patches<'a, T>),
}

impl<'a, T: Element> Inner<'a, T> {
    fn operand(&self) -> &(dyn Pack<T> + 'a) {
        match self {
            Inner::Strided(operand) => operand,
            Inner::Patches(operand) => operand,
        }
    }
}

impl<T: Element> Pack<T> for Loader<'_, T> {
    fn extent(&self) -> usize {
        self.inner.operand().extent() + usize::from(self.one == Some(Index::Features))
    }

    fn depth(&self) -> usize {
        self.inner.operand().depth() + usize::from(self.one == Some(Index::Outputs))
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let operand = self.inner.operand();
        match self.one {
            None => operand.pack(panel, first, start, kernels),
            Some(Index::Features) => WithOne(operand).pack(panel, first, start, kernels),
            Some(Index::Outputs) => WithOneDepth(operand).pack(panel, first, start, kernels),
        }
        if let Some(scaled) = &self.scaled {
            scaled.multiply(panel, first, start, kernels);
        }
    }

    fn rows(&self, first: usize, depths: &Range<usize>) -> Option<Unpacked<T>> {
        let operand = self.inner.operand();
        // Neither scaled nor the constant of a bias.
        let plain = self.scaled.is_none() && self.one != Some(Index::Features) && depths.end <= operand.depth();
        if plain { operand.rows(first, depths) } else { None }
    }
}

/// Errors with a weight for each row, summed over the labels of a datapoint: rows are depth, `sum_c v_(nc) e_(nc)t`.
pub(crate) struct Weighted<'a, T> {
    pub(crate) block: Block<'a, T>,
    pub(crate) weights: Weights<'a, T>,
}

/// Weights of rows.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a, T> {
    /// One for each row.
    Each(&'a [T]),
    /// The same for all.
    All(T),
}

impl<T: Element> Weights<'_, T> {
    fn at(&self, row: usize) -> T {
        match self {
            Weights::Each(weights) => weights[row],
            Weights::All(weight) => *weight,
        }
    }
}

impl<T: Element> Pack<T> for Weighted<'_, T> {
    fn extent(&self) -> usize {
        self.block.o
    }

    fn depth(&self) -> usize {
        self.block.datapoints * self.block.positions
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let (nr, labels) = (kernels.nr, self.block.labels);
        let weight = |depth: usize, label: usize| self.weights.at(depth / self.block.positions * labels + label);
        let blend = |to: &mut [T], from: *const T, alpha: T, beta: T| {
            // SAFETY: the kernels belong to an ISA this CPU has; a line onto itself, or two distinct ones of one length.
            unsafe { (kernels.blend)(to.as_mut_ptr(), from, to.len(), alpha, beta) };
        };
        self.block.errors_of(0, Index::Features).pack(panel, first, start, kernels);
        match self.weights {
            Weights::All(weight) if weight == T::one() => {}
            Weights::All(weight) => blend(panel, panel.as_ptr(), weight, T::zero()),
            Weights::Each(_) => {
                for (p, row) in panel.chunks_exact_mut(nr).enumerate() {
                    blend(row, row.as_ptr(), weight(start + p, 0), T::zero());
                }
            }
        }
        let mut piece = [T::zero(); PIECE];
        let depths = PIECE / nr;
        for label in 1..labels {
            let errors = self.block.errors_of(label, Index::Features);
            for (part, rows) in panel.chunks_mut(depths * nr).enumerate() {
                let (piece, start) = (&mut piece[..rows.len()], start + part * depths);
                errors.pack(piece, first, start, kernels);
                for (p, (row, more)) in rows.chunks_exact_mut(nr).zip(piece.chunks_exact(nr)).enumerate() {
                    blend(row, more.as_ptr(), weight(start + p, label), T::one());
                }
            }
        }
    }
}

/// Operands one after the other along the depth.
pub(crate) struct Stacked<'a, T>(pub(crate) &'a [&'a dyn Pack<T>]);

impl<T: Element> Pack<T> for Stacked<'_, T> {
    fn extent(&self) -> usize {
        self.0.first().map_or(0, |operand| operand.extent())
    }

    fn depth(&self) -> usize {
        self.0.iter().map(|operand| operand.depth()).sum()
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let (mut rest, mut start) = (panel, start);
        for operand in self.0 {
            let Some(depths) = operand.depth().checked_sub(start).filter(|&depths| depths > 0) else {
                start -= operand.depth();
                continue;
            };
            let count = depths.min(rest.len() / kernels.nr);
            let (part, tail) = rest.split_at_mut(count * kernels.nr);
            if count > 0 {
                operand.pack(part, first, start, kernels);
            }
            (rest, start) = (tail, 0);
        }
    }
}
