//! The posterior with all covariances between weights.

use crate::convolution::Conv;
use crate::dense::{blend_into, check_finite, temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::inverse::{Side, damped_cholesky_alloc, log_det, solve, solve_scratch};
use crate::layer::Layer;
use crate::optim::Observation;
use crate::optim::kept::{Frame, Kept};
use crate::woodbury::{LayerBatch, gradient_gram_alloc};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, Sampler, StackReq, Triangle};
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
        /// `a`, a positive number for each column of the weights, the bias's last: of a convolution one for each feature of a group, in its order.
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

    /// Deviations of the weights' columns, where they differ.
    fn input_deviations(&self) -> Option<Vec<T>> {
        match self {
            Prior::Isotropic { .. } => None,
            Prior::Separable { inputs, .. } => Some(inputs.iter().map(|variance| variance.sqrt()).collect()),
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
    frame: Frame,
    /// The batch, its errors in the units of the prior.
    kept: Kept<T>,
    /// Deviations of the weights' columns, by which inputs are scaled while they are packed: the patches of a convolution are nowhere else.
    scales: Vec<Option<Vec<T>>>,
    priors: Vec<Prior<T>>,
    /// Of `I + H H^T`.
    factor: Vec<T>,
    par: Par,
}

impl<T: Element> Laplace<T> {
    /// Keeps a copy of the batch, and factors `I + H H^T`: `R³/6` multiply-adds besides step (2). `observations` hold inputs and errors of `n`
    /// datapoints, with `labels` rows of errors for each.
    ///
    /// # Errors
    /// With the layer: [`Error::Parameter`] for variances that are not positive and finite, [`Error::Shape`] for another number of them. For the
    /// batch as [`Optimizer::observe`](crate::optim::Optimizer::observe).
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
        }
        let frame = Frame::new::<T>(layers, labels, par);
        frame.check(observations, n)?;
        let mut kept = Kept::new(&frame, n);
        kept.copy(&frame, observations, n)?;
        for ((layer, prior), [_, errors]) in layers.iter().zip(priors).zip(&mut kept.tensors) {
            scale_errors(errors, layer, prior);
        }
        let scales: Vec<_> = priors.iter().map(Prior::input_deviations).collect();
        let rows = frame.rows(n);
        let (mut gram, mut factor) = (vec![T::zero(); rows * rows], vec![T::zero(); rows * rows]);
        let batch: Vec<_> = (0..layers.len()).map(|l| scaled(&frame, &kept, &scales, l)).collect::<Result<_, _>>()?;
        gradient_gram_alloc(MatMut::new(&mut gram, [rows; 2])?, &batch, Triangle::Lower, par)?;
        let out = MatMut::new(&mut factor, [rows; 2])?;
        // The Gram matrix is a mean over the datapoints.
        damped_cholesky_alloc(out, MatRef::new(&gram, [rows; 2])?, T::from_f64(n as f64), T::one(), par)?;
        Ok(Laplace { layers: layers.to_vec(), frame, kept, scales, priors: priors.to_vec(), factor, par })
    }

    /// `R`.
    fn rows(&self) -> usize {
        self.frame.rows(self.kept.datapoints())
    }

    /// Layer `l` in the units of its prior.
    fn layer(&self, l: usize) -> Result<LayerBatch<'_, T>, Error> {
        scaled(&self.frame, &self.kept, &self.scales, l)
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
        let rows = self.rows();
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
        temporary_scratch::<T>(count.saturating_mul(self.rows())).and(self.map_scratch(count))
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
        let (rows, par, one) = (self.rows(), self.par, T::one());
        let count = self.check(y.iter().map(|y| y.shape()), "y")?;
        check_shape("z", &[count * rows], &[z.len()])?;
        check_scratch(stack, self.map_scratch(count))?;
        let samples = self.layers.len().max(1);
        for (y, z) in y.chunks_exact(samples).zip(z.chunks_exact_mut(rows.max(1))) {
            for (l, y) in y.iter().enumerate() {
                dots::dots(z, one, &self.layer(l)?.0, y.as_ref(), par, stack);
            }
        }
        let factor = MatRef::new(&self.factor, [rows; 2])?;
        solve(factor, MatMut::new(z, [count, rows])?, Side::Right, par, stack)?;
        for (y, w) in y.chunks_exact_mut(samples).zip(z.chunks_exact(rows.max(1))) {
            for (l, y) in y.iter_mut().enumerate() {
                let term = (self.layer(l)?.0, Weights::Each(w));
                sum::sum(y.rb_mut(), None, Blend::add(-one), &term, None, par, stack);
                each_entry(y, |k, j, y| y * self.priors[l].deviation(k, j));
            }
        }
        Ok(())
    }

    /// Scratch of [`map`](Self::map) for `count` vectors.
    pub fn map_scratch(&self, count: usize) -> StackReq {
        let solve = solve_scratch::<T>(self.rows(), count, self.par);
        (0..self.layers.len()).fold(solve, |req, l| match self.layer(l) {
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
        log_det(MatRef::new(&self.factor, [self.rows(); 2])?)
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

/// Layer `l` of the batch, its inputs in the units of the prior.
fn scaled<'a, T: Element>(
    frame: &Frame,
    kept: &'a Kept<T>,
    scales: &'a [Option<Vec<T>>],
    l: usize,
) -> Result<LayerBatch<'a, T>, Error> {
    let layer = kept.layer(frame, l)?;
    Ok(match &scales[l] {
        Some(scales) => LayerBatch(layer.0.with_scales(scales)),
        None => layer,
    })
}

/// Errors of one layer in the units of its prior.
fn scale_errors<T: Element>(errors: &mut [T], layer: &Layer, prior: &Prior<T>) {
    match prior {
        Prior::Isotropic { variance } => {
            let deviation = variance.sqrt();
            errors.iter_mut().for_each(|e| *e *= deviation);
        }
        Prior::Separable { outputs, .. } => {
            // Of images each channel is contiguous; in rows channels follow one another.
            let run = layer.convolution().map_or(1, Conv::positions);
            for (errors, variance) in errors.chunks_exact_mut(run).zip(outputs.iter().cycle()) {
                let deviation = variance.sqrt();
                errors.iter_mut().for_each(|e| *e *= deviation);
            }
        }
    }
}
