//! EK-FAC: K-FAC's eigenbasis with second moments measured in it.

use super::activations::{Observation, batch, times_scratch};
use super::factors::{Extra, Factors, Kind, matrix};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::{Preconditioner, State};
use crate::covariance::Centring;
use crate::dense::{temporary, temporary_scratch};
use crate::kronecker::{Denominators, Gradient, eigen_step, eigen_step_scratch};
use crate::layer::Layer;
use crate::{AnyView, Bias, Blend, Element, Error, MatMut, MemStack, Par, StackReq, View};
use foof_kernels::covariance::{second_moments, second_moments_scratch};

/// Options of [`Ekfac`](super::Ekfac).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EkfacOptions {
    /// `lambda > 0`, added to the moments.
    pub damping: f64,
    /// `m`, in `[0, 1)`, of factors and moments.
    pub factor_decay: f64,
    /// When factors are observed and refreshed.
    pub schedule: Schedule,
    /// How weights follow.
    pub step: StepOptions,
}

impl Default for EkfacOptions {
    /// `lambda = 0.1`, `m = 0.95`, T = 100, S = 10.
    fn default() -> Self {
        let (schedule, step) = (Schedule::default(), StepOptions::default());
        EkfacOptions { damping: 0.1, factor_decay: 0.95, schedule, step }
    }
}

/// EK-FAC's state: both factors of each layer, their eigenbases, and the moments `[o, i]`. A refresh restarts the moments from `b a^T`;
/// between refreshes each observation is averaged into them with `m`.
pub struct EkfacFactors<T> {
    factors: Factors<T>,
    options: EkfacOptions,
}

impl<T: Element> EkfacFactors<T> {
    /// `M <- m M + (1-m) (1/N) sum_n (Q_B^T G_n Q_A)²`
    fn observe_layer(
        &mut self,
        l: usize,
        seen: &Observation<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let layer = *self.factors.layer(l);
        let Some(e) = seen.errors else { return Ok(()) };
        let (t, shape @ [o, i]) = (layer.positions(), layer.weight_shape());
        let x = seen.inputs.datapoints("inputs", t, layer.inputs())?;
        let e = e.datapoints("errors", t, o)?;
        let (n, rows) = (x.shape()[0], e.shape()[0]);
        let (mut xq, stack) = temporary::<T>(stack, n * t * i);
        let (mut eq, stack) = temporary::<T>(stack, rows * t * o);
        let (q_a, q_b) = (self.factors.inputs[l].used(), self.factors.errors[l].used());
        batch(&x).times(MatMut::new(&mut xq, [n * t, i])?, layer.bias(), q_a, par, stack);
        batch(&e).times(MatMut::new(&mut eq, [rows * t, o])?, Bias::Without, q_b, par, stack);
        let xq = View::new(&xq, [n, t, i])?;
        let decay = self.factors.decay();
        let alpha = (T::one() - decay) * T::from_f64(1.0 / n as f64);
        let mut moments = MatMut::new(&mut self.factors.extras[l].used, shape)?;
        let labels = rows / n;
        for label in 0..labels {
            let strides = [labels * t * o, o, 1].map(|stride| stride as isize);
            let e = View::strided(&eq, label * t * o, [n, t, o], strides)?;
            let blend = Blend { alpha, beta: if label == 0 { decay } else { T::one() } };
            second_moments(moments.rb_mut(), blend, e, xq, par, stack);
        }
        Ok(())
    }

    fn layer_scratch(&self, l: usize, seen: &Observation<'_, T>, par: Par) -> StackReq {
        let layer = self.factors.layer(l);
        let (t, [o, i]) = (layer.positions(), layer.weight_shape());
        let rows = |x: Option<AnyView<'_, T, 3>>| x.map_or(0, |x| x.shape()[0]);
        let n = rows(seen.inputs.datapoints("inputs", t, layer.inputs()).ok());
        let m = rows(seen.errors.and_then(|e| e.datapoints("errors", t, o).ok()));
        let temporaries = [n * t * i, m * t * o].map(temporary_scratch::<T>);
        let products = [
            times_scratch::<T>([n, t, layer.inputs()], layer.bias(), par),
            times_scratch::<T>([m, t, o], Bias::Without, par),
            second_moments_scratch::<T>([n, t, o], i, par),
        ];
        StackReq::all_of(&temporaries).and(StackReq::any_of(&products))
    }
}

impl<T: Element> Preconditioner<T> for EkfacFactors<T> {
    type Options = EkfacOptions;
    type State = Factors<T>;
    const NAME: &'static str = "ekfac";

    fn new(layers: &[Layer], options: &EkfacOptions) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        let moments =
            |(l, layer): (usize, &Layer)| Extra::new(format!("layer.{l}.moments"), &layer.weight_shape(), T::zero());
        let factors = Factors::new(layers, options.factor_decay, Centring::Raw, Kind::Eigenbasis, true)
            .with_extras(layers.iter().enumerate().map(moments).collect());
        Ok(EkfacFactors { factors, options: *options })
    }

    fn settings(options: &EkfacOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    fn rules(&self) -> Vec<(&'static str, String)> {
        let EkfacOptions { damping, factor_decay, .. } = self.options;
        vec![("damping", format!("{damping:?}")), ("factor_decay", format!("{factor_decay:?}"))]
    }

    fn state(&self) -> &Factors<T> {
        &self.factors
    }

    fn state_mut(&mut self) -> &mut Factors<T> {
        &mut self.factors
    }

    fn observe(&mut self, seen: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.factors.observe(seen, par, stack)?;
        if self.factors.is_ready() {
            for (l, observation) in seen.iter().enumerate() {
                self.observe_layer(l, observation, par, stack)?;
            }
        }
        Ok(())
    }

    fn observe_scratch(&self, seen: &[Observation<'_, T>], par: Par) -> StackReq {
        let moments = seen.iter().enumerate().map(|(l, seen)| self.layer_scratch(l, seen, par));
        moments.fold(self.factors.observe_scratch(seen, par), StackReq::or)
    }

    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.factors.prepare_eigenbases(par, stack)?;
        let Factors { inputs, errors, extras, .. } = &mut self.factors;
        for ((input, error), moments) in inputs.iter().zip(errors).zip(extras) {
            let (a, b) = (&input.prepared_values, &error.prepared_values);
            for (row, &b) in moments.prepared.chunks_exact_mut(a.len()).zip(b) {
                row.iter_mut().zip(a).for_each(|(moment, &a)| *moment = b * a);
            }
        }
        Ok(())
    }

    fn precondition(
        &self,
        layer: usize,
        out: MatMut<'_, T>,
        blend: Blend<T>,
        gradient: Gradient<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let vectors = [self.factors.inputs[layer].used(), self.factors.errors[layer].used()];
        let moments = matrix(&self.factors.extras[layer].used, self.factors.layer(layer).weight_shape());
        let damping = T::from_f64(self.options.damping);
        eigen_step(out, blend, gradient, vectors, Denominators::Moments(moments), damping, par, stack)
    }

    fn precondition_scratch(&self, layer: usize, rows: Option<usize>, par: Par) -> StackReq {
        eigen_step_scratch::<T>(self.factors.layer(layer).weight_shape(), rows, par)
    }
}
