//! The posterior with all covariances between weights.

use crate::dense::{blend_into, check_finite, temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::inverse::{Side, damped_cholesky_alloc, log_det, solve, solve_scratch};
use crate::layer::Layer;
use crate::optim::Observation;
use crate::optim::kept::{Frame, Kept};
use crate::woodbury::{LayerBatch, gradient_gram_alloc};
use crate::{Bias, Blend, Element, Error, MatMut, MatRef, MemStack, Par, Sampler, StackReq, Triangle};
use foof_kernels::woodbury::{Weights, dots, sum};

/// The prior covariance `S0` of a layer's weights, about `W_MAP`'s prior mean.
#[derive(Clone, PartialEq, Debug)]
pub enum Prior<T> {
    /// `variance I`, `variance = sigma² > 0`.
    Isotropic {
        /// `sigma²`
        variance: T,
    },
    /// `diag(outputs) ⊗ diag(inputs)`: the weight from input `j` to output `k` has variance `outputs_k inputs_j`.
    Separable {
        /// `a`, a positive number for each column of the weights, the bias's last.
        inputs: Vec<T>,
        /// `b`, a positive number for each row.
        outputs: Vec<T>,
    },
}

impl<T: Element> Prior<T> {
    fn check(&self, [o, i]: [usize; 2]) -> Result<(), Error> {
        let positive = |name, values: &[T]| {
            values.iter().try_for_each(|value| {
                let holds = *value > T::zero() && value.is_finite();
                check_parameter(name, Element::to_f64(*value), holds, "positive finite variances")
            })
        };
        match self {
            Prior::Isotropic { variance } => positive("prior.variance", &[*variance]),
            Prior::Separable { inputs, outputs } => {
                check_shape("prior.inputs", &[i], &[inputs.len()])?;
                check_shape("prior.outputs", &[o], &[outputs.len()])?;
                positive("prior.inputs", inputs).and_then(|()| positive("prior.outputs", outputs))
            }
        }
    }

    /// Standard deviation of the weight `[k, j]`.
    fn deviation(&self, k: usize, j: usize) -> T {
        match self {
            Prior::Isotropic { variance } => variance.sqrt(),
            Prior::Separable { inputs, outputs } => outputs[k].sqrt() * inputs[j].sqrt(),
        }
    }
}

/// A factored posterior `N(W_MAP, (S0^-1 + sum_r g_r g_r^T)^-1)`, for any number of samples.
///
/// Weights are measured in their prior's deviations: with `H^T = S0^(1/2) [g_1 .. g_R]`, which is what gradients of scaled inputs and errors
/// are, `y ~ N(0, I)` and `z ~ N(0, I_R)`,
/// ```text
/// W = W_MAP + S0^(1/2) (y - H^T (I + H H^T)^-1 (H y + z))
/// ```
/// has exactly the posterior's distribution, and costs steps (1) and (3) of [`woodbury`](crate::woodbury) and a solve with the factor of `I + H H^T`.
pub struct Laplace<T> {
    layers: Vec<Layer>,
    /// Layers as the scaled batch has them: the constant of a separable prior's bias is scaled too, so it is an input.
    frame: Frame,
    scaled: Kept<T>,
    priors: Vec<Prior<T>>,
    /// Of `I + H H^T`.
    factor: Vec<T>,
    par: Par,
}

impl<T: Element> Laplace<T> {
    /// Keeps a scaled copy of the batch, and factors `I + H H^T`: `R³/6` multiply-adds besides step (2). `observations` hold inputs and errors of `n`
    /// datapoints, with `labels` rows of errors for each.
    ///
    /// # Errors
    /// With the layer: [`Error::Parameter`] for variances that are not positive and finite, and for a separable prior of a convolution;
    /// [`Error::Shape`] for another number of variances. For the batch as [`Optimizer::observe`](crate::optim::Optimizer::observe).
    /// [`Error::NotFinite`] or [`Error::NotPositiveDefinite`] where finite numbers overflow.
    pub fn new(
        layers: &[Layer],
        priors: &[Prior<T>],
        observations: &[Observation<'_, T>],
        [n, labels]: [usize; 2],
        par: Par,
    ) -> Result<Self, Error> {
        check_shape("priors", &[layers.len()], &[priors.len()])?;
        for (name, value) in [("datapoints", n), ("labels", labels)] {
            check_parameter(name, value as f64, value > 0, "a positive number")?;
        }
        for (l, (layer, prior)) in layers.iter().zip(priors).enumerate() {
            prior.check(layer.weight_shape()).map_err(|error| error.in_layer(l))?;
            let separable = matches!(prior, Prior::Separable { .. });
            let expected = "Prior::Isotropic: the columns of a convolution's weights are not its inputs";
            let fits = !(separable && layer.convolution().is_some());
            check_parameter("prior", l as f64, fits, expected).map_err(|error| error.in_layer(l))?;
        }
        let given = Frame::new::<T>(layers, n, labels, par);
        given.check(observations)?;
        let mut kept = Kept::new(&given);
        kept.copy(&given, observations)?;
        let with_constants: Vec<Layer> =
            layers.iter().zip(priors).map(|(layer, prior)| explicit(layer, prior)).collect::<Result<_, _>>()?;
        let frame = Frame::new::<T>(&with_constants, n, labels, par);
        let mut scaled = Kept::new(&frame);
        for (l, prior) in priors.iter().enumerate() {
            scale(&mut scaled.tensors[l], &kept.tensors[l], [layers[l].inputs(), layers[l].outputs()], prior);
        }
        let rows = frame.rows;
        let (mut gram, mut factor) = (vec![T::zero(); rows * rows], vec![T::zero(); rows * rows]);
        let batch = batch(&frame, &scaled)?;
        gradient_gram_alloc(MatMut::new(&mut gram, [rows; 2])?, &batch, Triangle::Lower, par)?;
        let out = MatMut::new(&mut factor, [rows; 2])?;
        // The Gram matrix is a mean over the datapoints.
        damped_cholesky_alloc(out, MatRef::new(&gram, [rows; 2])?, T::from_f64(n as f64), T::one(), par)?;
        Ok(Laplace { layers: layers.to_vec(), frame, scaled, priors: priors.to_vec(), factor, par })
    }

    /// Samples of the posterior: `mean` (`W_MAP`) one matrix of the weights' shape for each layer, `out` as many for each sample, one sample after the
    /// other. `K` samples solve with the factor once, for `K` right-hand sides: `R² K` multiply-adds, and `2 N P` each for steps (1) and (3).
    /// Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Shape`], with the layer; [`Error::Scratch`]; [`Error::NotFinite`] `mean`; `out` and the sampler as they were.
    pub fn samples(
        &self,
        out: &mut [MatMut<'_, T>],
        mean: &[MatRef<'_, T>],
        sampler: &mut Sampler,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        check_shape("mean", &[self.layers.len()], &[mean.len()])?;
        self.check(mean.iter().map(|mean| mean.shape()), "mean")?;
        let count = self.check(out.iter().map(|out| out.shape()), "out")?;
        check_scratch(stack, self.samples_scratch(count))?;
        for (l, mean) in mean.iter().enumerate() {
            check_finite("mean", *mean).map_err(|error| error.in_layer(l))?;
        }
        let rows = self.frame.rows;
        let (mut z, stack) = temporary::<T>(stack, count * rows);
        for (sample, z) in out.chunks_exact_mut(self.layers.len().max(1)).zip(z.chunks_exact_mut(rows.max(1))) {
            sample.iter_mut().for_each(|y| each_entry(y, |_, _, _| sampler.normal()));
            sampler.normals(z);
        }
        self.map(out, &mut z, stack)?;
        for sample in out.chunks_exact_mut(self.layers.len().max(1)) {
            for (out, mean) in sample.iter_mut().zip(mean) {
                blend_into(out.rb_mut(), Blend::add(T::one()), *mean, self.par);
            }
        }
        Ok(())
    }

    /// Scratch of [`samples`](Self::samples) for `count` samples.
    pub fn samples_scratch(&self, count: usize) -> StackReq {
        temporary_scratch::<T>(count.saturating_mul(self.frame.rows)).and(self.map_scratch(count))
    }

    /// One of [`samples`](Self::samples), with scratch of its own.
    ///
    /// # Errors
    /// As [`samples`](Self::samples).
    pub fn sample(
        &self,
        out: &mut [MatMut<'_, T>],
        mean: &[MatRef<'_, T>],
        sampler: &mut Sampler,
    ) -> Result<(), Error> {
        check_shape("out", &[self.layers.len()], &[out.len()])?;
        with_scratch(self.samples_scratch(1), |stack| self.samples(out, mean, sampler, stack))
    }

    /// The sampling map without the mean, of `K` vectors at once: overwrites each `y`, one matrix of the weights' shape for each layer, by
    /// `S0^(1/2) (y - H^T (I + H H^T)^-1 (H y + z))`, and `z`, `K` times `R` values. Linear in `(y, z)`, and times its transpose the posterior
    /// covariance: of independent standard normals it makes a sample; of other numbers, or quasi-random ones, what they are good for.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Scratch`]; `y` as it was.
    pub fn map(&self, y: &mut [MatMut<'_, T>], z: &mut [T], stack: &mut MemStack) -> Result<(), Error> {
        let (rows, par, one) = (self.frame.rows, self.par, T::one());
        let count = self.check(y.iter().map(|y| y.shape()), "y")?;
        check_shape("z", &[count * rows], &[z.len()])?;
        check_scratch(stack, self.map_scratch(count))?;
        let samples = self.layers.len().max(1);
        for (y, z) in y.chunks_exact(samples).zip(z.chunks_exact_mut(rows.max(1))) {
            for (l, y) in y.iter().enumerate() {
                dots::dots(z, one, &self.scaled.layer(&self.frame, l)?.0, y.as_ref(), par, stack);
            }
        }
        let factor = MatRef::new(&self.factor, [rows; 2])?;
        solve(factor, MatMut::new(z, [count, rows])?, Side::Right, par, stack)?;
        for (y, w) in y.chunks_exact_mut(samples).zip(z.chunks_exact(rows.max(1))) {
            for (l, y) in y.iter_mut().enumerate() {
                let term = (self.scaled.layer(&self.frame, l)?.0, Weights::Each(w));
                sum::sum(y.rb_mut(), None, Blend::add(-one), &term, None, par, stack);
                each_entry(y, |k, j, y| y * self.priors[l].deviation(k, j));
            }
        }
        Ok(())
    }

    /// Scratch of [`map`](Self::map) for `count` vectors.
    pub fn map_scratch(&self, count: usize) -> StackReq {
        let solve = solve_scratch::<T>(self.frame.rows, count, self.par);
        (0..self.layers.len()).fold(solve, |req, l| match self.scaled.layer(&self.frame, l) {
            Ok(layer) => req.or(dots::scratch(&layer.0, self.par)).or(sum::scratch(&layer.0, None, self.par)),
            Err(_) => StackReq::OVERFLOW,
        })
    }

    /// `log det (I + H H^T) = log det (I + sum_r g_r g_r^T S0)`: Occam's term. The log marginal likelihood of the data is, in Laplace's
    /// approximation, `log p(D | W_MAP) - prior_quadratic_form(W_MAP - W_0) / 2 - log_det() / 2`, with `W_0` the prior mean (MacKay 1992).
    ///
    /// # Errors
    /// None for a posterior that was factored.
    pub fn log_det(&self) -> Result<T, Error> {
        log_det(MatRef::new(&self.factor, [self.frame.rows; 2])?)
    }

    /// `v^T S0^-1 v`, summed over layers in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`], with the layer.
    pub fn prior_quadratic_form(&self, v: &[MatRef<'_, T>]) -> Result<T, Error> {
        check_shape("v", &[self.layers.len()], &[v.len()])?;
        self.check(v.iter().map(|v| v.shape()), "v")?;
        let mut sum = 0.0;
        for (v, prior) in v.iter().zip(&self.priors) {
            for k in 0..v.rows() {
                for j in 0..v.cols() {
                    sum += (Element::to_f64(v.at([k, j])) / Element::to_f64(prior.deviation(k, j))).powi(2);
                }
            }
        }
        Ok(T::from_f64(sum))
    }

    /// The number of vectors of one matrix for each layer.
    fn check(&self, shapes: impl ExactSizeIterator<Item = [usize; 2]>, argument: &'static str) -> Result<usize, Error> {
        let (layers, given) = (self.layers.len(), shapes.len());
        check_shape(argument, &[given.next_multiple_of(layers.max(1))], &[given])?;
        for (at, shape) in shapes.enumerate() {
            let l = at % layers;
            check_shape(argument, &self.layers[l].weight_shape(), &shape).map_err(|error| error.in_layer(l))?;
        }
        Ok(given / layers.max(1))
    }
}

/// Overwrites each entry, row by row, by a function of its place and itself.
fn each_entry<T: Element>(out: &mut MatMut<'_, T>, mut f: impl FnMut(usize, usize, T) -> T) {
    for k in 0..out.rows() {
        for j in 0..out.cols() {
            out.set([k, j], f(k, j, out.as_ref().at([k, j])));
        }
    }
}

fn batch<'a, T: Element>(frame: &Frame, kept: &'a Kept<T>) -> Result<Vec<LayerBatch<'a, T>>, Error> {
    (0..frame.layers().len()).map(|l| kept.layer(frame, l)).collect()
}

/// The layer with the constant 1 of its bias as an input, if the prior scales it by itself.
fn explicit<T>(layer: &Layer, prior: &Prior<T>) -> Result<Layer, Error> {
    match (prior, layer.bias()) {
        (Prior::Separable { .. }, Bias::With) => {
            Layer::dense(layer.factor_input(), layer.outputs())?.with_positions(layer.positions())
        }
        _ => Ok(*layer),
    }
}

/// Inputs and errors of one layer in the units of its prior.
fn scale<T: Element>(out: &mut [Vec<T>; 2], seen: &[Vec<T>; 2], [i, o]: [usize; 2], prior: &Prior<T>) {
    let ([x, e], [from_x, from_e]) = (out, seen);
    match prior {
        Prior::Isotropic { variance } => {
            x.copy_from_slice(from_x);
            let deviation = variance.sqrt();
            e.iter_mut().zip(from_e).for_each(|(e, &from)| *e = deviation * from);
        }
        Prior::Separable { inputs, outputs } => {
            for (x, from) in x.chunks_exact_mut(inputs.len()).zip(from_x.chunks_exact(i)) {
                let constant = from.iter().copied().chain(core::iter::once(T::one()));
                x.iter_mut().zip(inputs).zip(constant).for_each(|((x, a), from)| *x = a.sqrt() * from);
            }
            for (e, from) in e.chunks_exact_mut(o).zip(from_e.chunks_exact(o)) {
                e.iter_mut().zip(outputs).zip(from).for_each(|((e, b), &from)| *e = b.sqrt() * from);
            }
        }
    }
}
