//! EK-FAC: K-FAC's eigenbasis with second moments measured in it.

use super::activations::Observation;
use super::blocks::{Kind, Side as Factor, matrix};
use super::factors::{Extra, Factors, Parts, Setting, datapoints};
use super::moments::{Basis, Moments};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::{Preconditioner, State};
use crate::convolution::Side;
use crate::covariance::Centring;
use crate::kronecker::{Denominators, Gradient, eigen_step, eigen_step_scratch};
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MemStack, Par, StackReq};

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
///
/// A convolution's moments cost `N T (o²/G + o f) + N min(T, o/G) G f²` multiply-adds an observation, `f` counted with the bias: its patches
/// are projected where there are fewer of them in an image than rows in a group's gradient, else the gradient of each datapoint. Memory: a
/// block of images after projection, some megabytes or one image.
pub struct EkfacFactors<T> {
    factors: Factors<T>,
    /// How each layer's moments are formed.
    moments: Vec<Moments>,
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
        let (first, decay) = (self.factors.blocks(l).start, self.factors.decay());
        let Some(e) = seen.errors else { return Ok(()) };
        let Parts { layer, plan, factors, extras } = self.factors.parts(l);
        let x = datapoints(layer, plan, Side::Inputs, seen.inputs)?;
        let e = datapoints(layer, plan, Side::Outputs, e)?;
        let basis = Basis { layer, factors, first };
        self.moments[l].observe(&mut extras[l].used, decay, x, e, basis, par, stack)
    }

    fn layer_scratch(&self, l: usize, seen: &Observation<'_, T>, par: Par) -> StackReq {
        let x = self.factors.datapoints(l, Side::Inputs, seen.inputs).ok();
        let e = seen.errors.and_then(|e| self.factors.datapoints(l, Side::Outputs, e).ok());
        match (x, e) {
            (Some(x), Some(e)) => self.moments[l].scratch(self.factors.layer(l), x, e, par),
            _ => StackReq::empty(),
        }
    }
}

impl<T: Element> Preconditioner<T> for EkfacFactors<T> {
    type Options = EkfacOptions;
    type State = Factors<T>;
    const NAME: &'static str = "ekfac";

    fn new(layers: &[Layer], options: &EkfacOptions, par: Par) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        let setting =
            Setting { decay: options.factor_decay, centring: Centring::Raw, kind: Kind::Eigenbasis, with_errors: true };
        let (mut extras, mut moments) = (Vec::new(), Vec::new());
        for (l, layer) in layers.iter().enumerate() {
            extras.push(Extra::new(format!("layer.{l}.moments"), &layer.weight_shape(), T::zero()));
            moments.push(Moments::new(layer).map_err(|error| Error::from(error).in_layer(l))?);
        }
        let factors = Factors::new(layers, setting, par)?.with_extras(extras);
        Ok(EkfacFactors { factors, moments, options: *options })
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

    fn damping(&self) -> f64 {
        self.options.damping
    }

    fn set_damping(&mut self, damping: f64) {
        self.options.damping = damping;
    }

    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let c = self.factors.needed_correction()?;
        self.factors.blocks.check_finite(c)?;
        self.factors.blocks.prepare_eigenbases(c, par, stack)?;
        for l in 0..self.moments.len() {
            let blocks = self.factors.blocks(l);
            let Parts { layer, factors, extras, .. } = self.factors.parts(l);
            let parts = extras[l].prepared.chunks_exact_mut(layer.factor_error() * layer.factor_input());
            for (moments, block) in parts.zip(blocks) {
                let [a, b] = [Factor::Input, Factor::Error].map(|side| factors.prepared_values(side, block));
                for (row, &b) in moments.chunks_exact_mut(a.len()).zip(b) {
                    row.iter_mut().zip(a).for_each(|(moment, &a)| *moment = b * a);
                }
            }
        }
        Ok(())
    }

    fn precondition(
        &self,
        block: usize,
        out: MatMut<'_, T>,
        blend: Blend<T>,
        gradient: Gradient<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let factors = &self.factors.blocks;
        let vectors = [Factor::Input, Factor::Error].map(|side| factors.used(side, block));
        let (layer, [o, i]) = (factors.layer(block), self.factors.block_shape(block));
        let first = (block - self.factors.blocks(layer).start) * o * i;
        let moments = matrix(&self.factors.extras[layer].used[first..first + o * i], [o, i]);
        let damping = T::from_f64(self.options.damping);
        eigen_step(out, blend, gradient, vectors, Denominators::Moments(moments), damping, par, stack)
    }

    fn precondition_scratch(&self, block: usize, rows: Option<usize>, par: Par) -> StackReq {
        eigen_step_scratch::<T>(self.factors.block_shape(block), rows, par)
    }
}
