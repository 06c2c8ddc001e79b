//! The posterior with all covariances between weights.

use crate::dense::{blend_into, check_finite};
use crate::error::{check_parameter, check_shape};
use crate::inverse::{Side, damped_cholesky_alloc, log_det, solve_alloc};
use crate::layer::Layer;
use crate::optim::Observation;
use crate::optim::kept::{Frame, Kept};
use crate::woodbury::{Direction, LayerBatch, gradient_dots_alloc, gradient_gram_alloc, gradient_sum_alloc};
use crate::{Bias, Blend, Element, Error, MatMut, MatRef, Par, Sampler, Triangle};

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

    /// A sample of the posterior, `out` and `mean` (`W_MAP`) one matrix of the weights' shape for each layer.
    ///
    /// # Errors
    /// [`Error::Shape`], with the layer; [`Error::NotFinite`] `mean`; `out` and the sampler as they were.
    pub fn sample(
        &self,
        out: &mut [MatMut<'_, T>],
        mean: &[MatRef<'_, T>],
        sampler: &mut Sampler,
    ) -> Result<(), Error> {
        self.check(mean.iter().map(|mean| mean.shape()), "mean")?;
        self.check(out.iter().map(|out| out.shape()), "out")?;
        for (l, mean) in mean.iter().enumerate() {
            check_finite("mean", *mean).map_err(|error| error.in_layer(l))?;
        }
        let mut y: Vec<Vec<T>> = self.layers.iter().map(|layer| vec![T::zero(); layer.weights()]).collect();
        let mut z = vec![T::zero(); self.frame.rows];
        y.iter_mut().for_each(|y| sampler.normals(y));
        sampler.normals(&mut z);
        self.map(&mut y, &mut z)?;
        for (l, (out, mean)) in out.iter_mut().zip(mean).enumerate() {
            blend_into(out.rb_mut(), Blend::set(T::one()), *mean, self.par);
            let change = MatRef::new(&y[l], out.shape())?;
            blend_into(out.rb_mut(), Blend::add(T::one()), change, self.par);
        }
        Ok(())
    }

    /// The sampling map without the mean: overwrites `y`, a vector of the weights' shape for each layer, by `S0^(1/2) (y - H^T (I + H H^T)^-1 (H y + z))`,
    /// and `z` of `R` values. Linear in `(y, z)`, and times its transpose the posterior covariance: of independent standard normals it
    /// makes a sample; of other numbers, or quasi-random ones, what they are good for.
    ///
    /// # Errors
    /// [`Error::Shape`]; `y` as it was.
    pub fn map(&self, y: &mut [Vec<T>], z: &mut [T]) -> Result<(), Error> {
        check_shape("y", &[self.layers.len()], &[y.len()])?;
        check_shape("z", &[self.frame.rows], &[z.len()])?;
        for (l, (layer, y)) in self.layers.iter().zip(&*y).enumerate() {
            check_shape("y", &[layer.weights()], &[y.len()]).map_err(|error| error.in_layer(l))?;
        }
        let (rows, batch) = (self.frame.rows, batch(&self.frame, &self.scaled)?);
        let root = T::from_f64((self.frame.datapoints as f64).sqrt());
        let mut w = vec![T::zero(); rows];
        let directions = self.layers.iter().zip(&*y);
        let directions = directions.map(|(layer, y)| MatRef::new(y, layer.weight_shape()).map(Direction::Matrix));
        gradient_dots_alloc(&mut w, &batch, &directions.collect::<Result<Vec<_>, _>>()?, self.par)?;
        w.iter_mut().zip(&*z).for_each(|(w, &z)| *w = root * *w + z);
        solve_alloc(MatRef::new(&self.factor, [rows; 2])?, MatMut::new(&mut w, [rows, 1])?, Side::Left, self.par)?;
        let parts = self.layers.iter().zip(&mut *y).map(|(layer, y)| MatMut::new(y, layer.weight_shape()));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        gradient_sum_alloc(&mut parts, Blend::add(-root), &batch, &w, self.par)?;
        for ((layer, prior), y) in self.layers.iter().zip(&self.priors).zip(y) {
            let i = layer.factor_input();
            y.iter_mut().enumerate().for_each(|(at, y)| *y *= prior.deviation(at / i, at % i));
        }
        Ok(())
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

    fn check(&self, shapes: impl ExactSizeIterator<Item = [usize; 2]>, argument: &'static str) -> Result<(), Error> {
        check_shape(argument, &[self.layers.len()], &[shapes.len()])?;
        for (l, (layer, shape)) in self.layers.iter().zip(shapes).enumerate() {
            check_shape(argument, &layer.weight_shape(), &shape).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
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
