//! EK-FAC's second moments: `M <- m M + (1-m) (1/N) sum_n (Q_B^T G_n Q_A)²`, squared entry by entry, of a mini-batch in given eigenbases.

use super::activations::{Datapoints, with_view};
use super::blocks::{Blocks, Side};
use crate::convolution::{Conv, GeometryError};
use crate::dense::{blend_into, temporary, temporary_scratch};
use crate::kronecker::{rows_times, rows_times_scratch};
use crate::layer::Layer;
use crate::{AnyView, Bias, Blend, Element, Error, Input, MatMut, MatRef, MemStack, Par, StackReq, View, ViewMut};
use core::ops::Range;
use foof_kernels::conv::product::{forward, forward_scratch, weight_gradient, weight_gradient_scratch};
use foof_kernels::covariance::{second_moments, second_moments_scratch};
use foof_kernels::product::{product, product_scratch};

/// Numbers that the projections of a block of images may take; a block has one image at least.
const BLOCK: usize = 1 << 19;

/// How the moments of a layer are formed.
pub(super) enum Moments {
    /// `((E_n Q_B)^T (X_n Q_A))²` of the whole mini-batch.
    Dense,
    /// The same of a convolution, block of images by block of images.
    Conv(Box<Projections>),
}

/// The projections of a convolution's patches and errors on the eigenbases of its groups, as convolutions: `Q^T` are their weights.
pub(super) struct Projections {
    /// From errors to projected errors: one tap, `o` channels to `o`.
    errors: Conv,
    /// From images to projected patches, `G f'` channels, where that is cheaper than to project each image's gradient: for `T < o / G`.
    inputs: Option<Conv>,
}

/// The layer, and the eigenbases of its groups.
#[derive(Clone, Copy)]
pub(super) struct Basis<'a, T> {
    pub(super) layer: &'a Layer,
    pub(super) factors: &'a Blocks<T>,
    /// The first of the layer's blocks.
    pub(super) first: usize,
}

impl<'a, T: Element> Basis<'a, T> {
    fn vectors(&self, side: Side, group: usize) -> MatRef<'a, T> {
        self.factors.used(side, self.first + group)
    }

    /// `Q^T` of each group below one another.
    fn transposed(&self, out: &mut [T], side: Side, size: usize) -> Result<(), Error> {
        for (group, out) in out.chunks_exact_mut(size * size).enumerate() {
            MatMut::new(out, [size, size])?.copy_from(self.vectors(side, group).transpose());
        }
        Ok(())
    }
}

impl Moments {
    pub(super) fn new(layer: &Layer) -> Result<Self, GeometryError> {
        let Some(conv) = layer.convolution() else { return Ok(Moments::Dense) };
        let (groups, size) = (conv.groups(), conv.factor_size());
        let rows = conv.positions() < layer.factor_error();
        let projected = || {
            let patches = Conv::new(conv.in_channels(), groups * size, conv.axes3())?;
            let patches = patches.with_groups(groups)?.with_order(conv.order());
            Ok(if conv.bias() == Bias::With { patches.with_bias() } else { patches })
        };
        let inputs = rows.then(projected).transpose()?;
        Ok(Moments::Conv(Box::new(Projections { errors: conv.outputs_only(), inputs })))
    }

    /// Averages a mini-batch into `moments` `[o, i]` with `decay`.
    #[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
    pub(super) fn observe<T: Element>(
        &self,
        moments: &mut [T],
        decay: T,
        x: Datapoints<'_, '_, T>,
        e: Datapoints<'_, '_, T>,
        basis: Basis<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let alpha = (T::one() - decay) * T::from_f64(1.0 / x.count() as f64);
        let blend = Blend { alpha, beta: decay };
        match (self, x, e) {
            (Moments::Dense, Datapoints::Rows(x), Datapoints::Rows(e)) => {
                dense(moments, blend, x, e, basis, par, stack)
            }
            (Moments::Conv(projections), Datapoints::Images(x, plan), Datapoints::Images(e, _)) => {
                projections.observe(moments, blend, x, e, plan.conv(), basis, par, stack)
            }
            _ => unreachable!("datapoints were made for the layer"),
        }
    }

    /// Scratch of [`Moments::observe`].
    pub(super) fn scratch<T: Element>(
        &self,
        layer: &Layer,
        x: Datapoints<'_, '_, T>,
        e: Datapoints<'_, '_, T>,
        par: Par,
    ) -> StackReq {
        let ([n, rows], [o, i], t) = ([x.count(), e.count()], layer.weight_shape(), layer.positions());
        match self {
            Moments::Dense => {
                let temporaries = [n * t * i, rows * t * o].map(temporary_scratch::<T>);
                let products = [
                    times_scratch::<T>([n, t, layer.inputs()], layer.bias(), par),
                    times_scratch::<T>([rows, t, o], Bias::Without, par),
                    second_moments_scratch::<T>([n, t, o], i, par),
                ];
                StackReq::all_of(&temporaries).and(StackReq::any_of(&products))
            }
            Moments::Conv(projections) => projections.scratch::<T>(n, rows / n.max(1), layer, par),
        }
    }
}

/// `N T i² + N T o²` multiply-adds for the projections, `N T o i` for the moments.
fn dense<T: Element>(
    moments: &mut [T],
    blend: Blend<T>,
    x: AnyView<'_, T, 3>,
    e: AnyView<'_, T, 3>,
    basis: Basis<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let ([n, t, _], [rows, ..]) = (x.shape(), e.shape());
    let shape @ [o, i] = basis.layer.weight_shape();
    let (mut xq, stack) = temporary::<T>(stack, n * t * i);
    let (mut eq, stack) = temporary::<T>(stack, rows * t * o);
    let (q_a, q_b) = (basis.vectors(Side::Input, 0), basis.vectors(Side::Error, 0));
    let (to_x, to_e) = (MatMut::new(&mut xq, [n * t, i])?, MatMut::new(&mut eq, [rows * t, o])?);
    with_view!(x, x => times(x, to_x, basis.layer.bias(), q_a, par, stack));
    with_view!(e, e => times(e, to_e, Bias::Without, q_b, par, stack));
    let xq = View::new(&xq, [n, t, i])?;
    let labels = rows / n;
    for label in 0..labels {
        let e = View::strided(&eq, label * t * o, [n, t, o], [labels * t * o, o, 1].map(|stride| stride as isize))?;
        second_moments(MatMut::new(moments, shape)?, first_sets(blend, label == 0), e, xq, par, stack);
    }
    Ok(())
}

/// A part of a sum: the first meets the old output, the others are added to it.
fn first_sets<T: Element>(blend: Blend<T>, first: bool) -> Blend<T> {
    Blend { beta: if first { blend.beta } else { T::one() }, ..blend }
}

/// `out <- [X 1] Q`, or `X Q`, for `out` `[N T, d]`.
fn times<I: Input>(
    x: View<'_, I, 3>,
    mut out: MatMut<'_, I::Acc>,
    bias: Bias,
    q: MatRef<'_, I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    if let Some(rows) = x.rows() {
        return rows_times(out, rows, bias, q, par, stack);
    }
    let [n, t, _] = x.shape();
    for datapoint in 0..n {
        let out = out.rb_mut().row_range(datapoint * t..(datapoint + 1) * t);
        rows_times(out, x.datapoint(datapoint), bias, q, par, stack);
    }
}

/// Scratch of [`times`] for a view of `shape`.
fn times_scratch<T: Element>([n, t, d]: [usize; 3], bias: Bias, par: Par) -> StackReq {
    rows_times_scratch::<T>(n * t, d, bias, par).or(rows_times_scratch::<T>(t, d, bias, par))
}

/// Some images of a mini-batch: their inputs, and their errors after projection.
struct Images<'a, T: Element> {
    /// All images.
    x: AnyView<'a, T, 5>,
    range: Range<usize>,
    /// `[images, labels, o, T]`
    projected: &'a [T],
    labels: usize,
}

/// Errors are projected for `N T o²/G` multiply-adds. Then the patches, for `N T f²`, and `((E_n Q_B)^T (X_n Q_A))²` is formed tile by tile for
/// `N T o f`; or each datapoint's gradient `(E_n Q_B)^T X_n` is formed, `N T o f`, and projected, `N o f²`.
impl Projections {
    #[expect(clippy::too_many_arguments, reason = "the operands of the formula")]
    fn observe<T: Element>(
        &self,
        moments: &mut [T],
        blend: Blend<T>,
        x: AnyView<'_, T, 5>,
        e: AnyView<'_, T, 5>,
        conv: &Conv,
        basis: Basis<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let (n, labels) = (x.shape()[0], e.shape()[0] / x.shape()[0]);
        let (block, each, [o, size]) =
            (self.images(labels, conv).min(n), basis.layer.factor_error(), conv.weight_shape());
        let (mut q_b, stack) = temporary::<T>(stack, o * each);
        basis.transposed(&mut q_b, Side::Error, each)?;
        let q_b = MatRef::new(&q_b, [o, each])?;
        let patches = self.inputs.map_or(0, |inputs| inputs.out_channels() * size);
        let (mut q_a, stack) = temporary::<T>(stack, patches);
        basis.transposed(&mut q_a, Side::Input, size)?;
        let (mut projected, stack) = temporary::<T>(stack, block * labels * o * conv.positions());
        for start in (0..n).step_by(block) {
            let range = start..n.min(start + block);
            let rows = range.start * labels..range.end * labels;
            let to = ViewMut::new(&mut projected, conv.output_shape(rows.len()))?;
            let set = Blend::set(T::one());
            with_view!(e, e => forward(to, set, e.images(rows), q_b, &self.errors, par, stack));
            let (blend, images) = (first_sets(blend, start == 0), Images { x, range, projected: &projected, labels });
            match &self.inputs {
                Some(inputs) => {
                    let q_a = MatRef::new(&q_a, [inputs.out_channels(), size])?;
                    by_patches(moments, blend, images, [conv, inputs], q_a, par, stack)?;
                }
                None => by_gradients(moments, blend, images, conv, basis, par, stack)?,
            }
        }
        Ok(())
    }

    /// Images of a block.
    fn images(&self, labels: usize, conv: &Conv) -> usize {
        let ([o, size], t, groups) = (conv.weight_shape(), conv.positions(), conv.groups());
        let more = match &self.inputs {
            Some(inputs) => t * inputs.out_channels(),
            None => labels * (o + o / groups) * size,
        };
        (BLOCK / (labels * o * t + more)).max(1)
    }

    fn scratch<T: Element>(&self, n: usize, labels: usize, layer: &Layer, par: Par) -> StackReq {
        let (Some(conv), true) = (layer.convolution(), n > 0) else { return StackReq::empty() };
        let (each, [o, size], t) = (layer.factor_error(), conv.weight_shape(), conv.positions());
        let block = self.images(labels, conv).min(n);
        let patches = self.inputs.map_or(0, |inputs| inputs.out_channels() * size);
        let temporaries = [o * each, patches, block * labels * o * t].map(temporary_scratch::<T>);
        // A last block may have fewer images.
        let counts = [block, n % block].map(|images| match images {
            0 => StackReq::empty(),
            images => {
                let errors = forward_scratch::<T>(images * labels, &self.errors, par);
                errors.or(match &self.inputs {
                    Some(inputs) => by_patches_scratch::<T>(images, inputs, [each, t], par),
                    None => by_gradients_scratch::<T>(images * labels, conv, par),
                })
            }
        });
        StackReq::all_of(&temporaries).and(StackReq::any_of(&counts))
    }
}

/// The moments of each group from the block's patches, projected.
fn by_patches<T: Element>(
    moments: &mut [T],
    blend: Blend<T>,
    images: Images<'_, T>,
    [conv, projection]: [&Conv; 2],
    q_a: MatRef<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let Images { x, range, projected, labels } = images;
    let (n, t, [o, size]) = (range.len(), conv.positions(), conv.weight_shape());
    let each = o / conv.groups();
    let channels = projection.out_channels();
    let (mut xq, stack) = temporary::<T>(stack, n * channels * t);
    let to = ViewMut::new(&mut xq, projection.output_shape(n))?;
    with_view!(x, x => forward(to, Blend::set(T::one()), x.images(range), q_a, projection, par, stack));
    for (group, moments) in moments.chunks_exact_mut(each * size).enumerate() {
        let strides = |image: usize| [image as isize, 1, t as isize];
        let x = View::strided(&xq, group * size * t, [n, t, size], strides(channels * t))?;
        for label in 0..labels {
            let first = (label * o + group * each) * t;
            let e = View::strided(projected, first, [n, t, each], strides(labels * o * t))?;
            let moments = MatMut::new(moments, [each, size])?;
            second_moments(moments, first_sets(blend, label == 0), e, x, par, stack);
        }
    }
    Ok(())
}

fn by_patches_scratch<T: Element>(n: usize, projection: &Conv, [each, t]: [usize; 2], par: Par) -> StackReq {
    let (channels, size) = (projection.out_channels(), projection.factor_size());
    let products = forward_scratch::<T>(n, projection, par).or(second_moments_scratch::<T>([n, t, each], size, par));
    temporary_scratch::<T>(n * channels * t).and(products)
}

/// The moments of each group from the gradients of the block's datapoints and labels, half projected, one after the other.
fn by_gradients<T: Element>(
    moments: &mut [T],
    blend: Blend<T>,
    images: Images<'_, T>,
    conv: &Conv,
    basis: Basis<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let Images { x, range, projected, labels } = images;
    let (rows, t, [o, size]) = (range.len() * labels, conv.positions(), conv.weight_shape());
    let (each, set) = (o / conv.groups(), Blend::set(T::one()));
    let part = each * size;
    // By groups, so that one product projects those of all datapoints.
    let (mut gradients, stack) = temporary::<T>(stack, rows * o * size);
    let (mut one, stack) = temporary::<T>(stack, o * size);
    let (mut turned, stack) = temporary::<T>(stack, rows * part);
    for (row, e) in projected.chunks_exact(o * t).take(rows).enumerate() {
        let image = range.start + row / labels;
        let (e, to) = (View::new(e, conv.output_shape(1))?, MatMut::new(&mut one, [o, size])?);
        with_view!(x, x => weight_gradient(to, set, e, x.images(image..image + 1), conv, par, stack));
        for (all, one) in gradients.chunks_exact_mut(rows * part).zip(one.chunks_exact(part)) {
            all[row * part..(row + 1) * part].copy_from_slice(one);
        }
    }
    for (group, moments) in moments.chunks_exact_mut(part).enumerate() {
        let gradients = MatRef::new(&gradients[group * rows * part..(group + 1) * rows * part], [rows * each, size])?;
        let to = MatMut::new(&mut turned, [rows * each, size])?;
        product(to, set, gradients, basis.vectors(Side::Input, group), par, stack);
        let (sum, others) = turned.split_at_mut(part);
        sum.iter_mut().for_each(|v| *v = *v * *v);
        for other in others.chunks_exact(part) {
            sum.iter_mut().zip(other).for_each(|(sum, &v)| *sum += v * v);
        }
        blend_into(MatMut::new(moments, [each, size])?, blend, MatRef::new(sum, [each, size])?, par);
    }
    Ok(())
}

fn by_gradients_scratch<T: Element>(rows: usize, conv: &Conv, par: Par) -> StackReq {
    let [o, size] = conv.weight_shape();
    let each = o / conv.groups();
    let temporaries = [rows * o * size, o * size, rows * each * size].map(temporary_scratch::<T>);
    let products = weight_gradient_scratch::<T>(1, conv, par).or(product_scratch::<T>(rows * each, size, size, par));
    StackReq::all_of(&temporaries).and(products)
}
