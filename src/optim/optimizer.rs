//! The optimiser around a preconditioner.

use super::activations::Observation;
use super::adaptive::{ModelStep, QuadraticModel, model_scratch};
use super::blocks::{cut, matrix, matrix_mut};
use super::compare::blocks_cosine;
use super::natural::direction;
use super::options::{Order, Schedule, StepOptions, check_factors};
use super::preconditioner::{Preconditioner, State};
use crate::dense::{blend_into, list, temporary, temporary_scratch};
use crate::error::{check_parameter, check_shape};
use crate::kronecker::Gradient;
use crate::layer::Layer;
use crate::woodbury::{Direction, LayerBatch};
use crate::{Bias, Blend, Element, Error, MatMut, MatRef, MemBuffer, MemStack, Par, StackReq};

/// A preconditioner with schedule, momentum, weight decay and averaging. Memory grows to what the largest mini-batch needs and is then
/// kept: later steps allocate nothing.
pub struct Optimizer<T, P> {
    pub(super) preconditioner: P,
    pub(super) schedule: Schedule,
    pub(super) step: StepOptions,
    par: Par,
    /// Steps taken.
    pub(super) t: u64,
    /// `V`; empty without momentum.
    pub(super) momentum: Vec<Vec<T>>,
    /// `Wbar`; empty without averaging.
    pub(super) average: Vec<Vec<T>>,
    memory: Memory,
}

/// Scratch that grows.
struct Memory {
    buffer: MemBuffer,
    size: StackReq,
}

impl Memory {
    fn stack(&mut self, req: StackReq) -> &mut MemStack {
        if !MemStack::new(&mut self.buffer).can_hold(req) {
            self.size = self.size.or(req);
            self.buffer = MemBuffer::new(self.size);
        }
        MemStack::new(&mut self.buffer)
    }
}

impl<T: Element, P: Preconditioner<T>> Optimizer<T, P> {
    /// An optimiser of weights `[o, i]` (with bias `[o, i+1]`) for each layer. What convolutions compute is decided here, for `par`'s
    /// instruction set.
    ///
    /// # Errors
    /// [`Error::Parameter`] for options outside their range: damping that is not positive and finite, `m` outside `[0, 1)`, ..; centring of
    /// a convolution, with the layer.
    pub fn new(layers: &[Layer], options: P::Options, par: Par) -> Result<Self, Error> {
        let (schedule, step) = P::settings(&options);
        schedule.check()?;
        step.check()?;
        let preconditioner = P::new(layers, &options, par)?;
        let buffers = |wanted: bool| {
            let layers = if wanted { layers } else { &[] };
            layers.iter().map(|layer| vec![T::zero(); layer.weights()]).collect()
        };
        // For gradients as matrices; mini-batches add what they need.
        let size = (0..layers.len()).fold(preconditioner.state().prepare_scratch(par), |req, l| {
            req.or(precondition_scratch(&preconditioner, l, None, par))
        });
        let memory = Memory { buffer: MemBuffer::new(size), size };
        let (momentum, average) = (buffers(step.momentum > 0.0), buffers(step.polyak.is_some()));
        Ok(Optimizer { preconditioner, schedule, step, par, t: 0, momentum, average, memory })
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        self.preconditioner.state().layers()
    }

    /// The number of steps taken.
    pub fn steps(&self) -> u64 {
        self.t
    }

    /// The preconditioner.
    pub fn preconditioner(&self) -> &P {
        &self.preconditioner
    }

    /// When factors are observed and refreshed.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether the next step needs observations.
    pub fn wants_observation(&self) -> bool {
        self.schedule.observes(self.t)
    }

    /// Changes `eta`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is negative or not finite.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<(), Error> {
        let step = StepOptions { learning_rate, ..self.step };
        step.check()?;
        self.step = step;
        Ok(())
    }

    /// `lambda`.
    pub fn damping(&self) -> f64 {
        self.preconditioner.damping()
    }

    /// Changes `lambda`. What the last refresh made keeps its own: inverses and systems; in eigenbases the new one counts at once.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is not positive and finite.
    pub fn set_damping(&mut self, damping: f64) -> Result<(), Error> {
        check_factors::<T>(damping, 0.0)?;
        self.preconditioner.set_damping(damping);
        Ok(())
    }

    /// The Polyak average of a layer's weights, after the first step, if it is kept.
    pub fn average(&self, layer: usize) -> Option<MatRef<'_, T>> {
        let shape = self.layers().get(layer)?.weight_shape();
        self.average.get(layer).filter(|_| self.t > 0).and_then(|values| MatRef::new(values, shape).ok())
    }

    /// Takes a mini-batch, one observation for each layer, into the running factors.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Missing`] errors, [`Error::EmptyBatch`], [`Error::NotFinite`], with the layer; state as it was.
    pub fn observe(&mut self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        self.preconditioner.state().check(observations)?;
        let req = self.preconditioner.observe_scratch(observations, self.par);
        self.preconditioner.observe(observations, self.par, self.memory.stack(req))
    }

    /// Puts the running factors to use.
    ///
    /// # Errors
    /// [`Error::Missing`] before anything was observed; [`Error::NotPositiveDefinite`] with the layer; state as it was.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let req = self.preconditioner.state().prepare_scratch(self.par);
        self.preconditioner.prepare(self.par, self.memory.stack(req))?;
        self.preconditioner.state_mut().commit();
        Ok(())
    }

    /// Whether outputs and gradients are the layers'.
    fn check_gradients(&self, out: &[MatMut<'_, T>], gradients: &[Gradient<'_, T>]) -> Result<(), Error> {
        let layers = self.layers();
        check_shape("weights", &[layers.len()], &[out.len()])?;
        check_shape("gradients", &[layers.len()], &[gradients.len()])?;
        for (l, layer) in layers.iter().enumerate() {
            let shape = layer.weight_shape();
            check_shape("weights", &shape, &out[l].shape())
                .and_then(|()| check_form(layer, gradients[l]))
                .and_then(|()| with_constant(layer, gradients[l]).check(shape))
                .map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    /// Scratch for a step with checked gradients, by what is in use.
    fn gradients_scratch(&self, gradients: &[Gradient<'_, T>]) -> StackReq {
        let layer =
            |(l, u): (usize, &Gradient<'_, T>)| precondition_scratch(&self.preconditioner, l, u.rows(), self.par);
        let gather = self.preconditioner.gather_scratch(gradients, self.par);
        gradients.iter().enumerate().map(layer).fold(gather, StackReq::or)
    }

    fn check_ready(&self) -> Result<(), Error> {
        match self.preconditioner.state().is_ready() {
            true => Ok(()),
            false => Err(Error::Missing { what: "refresh", needed_for: "there are no factors to precondition with" }),
        }
    }

    /// `D`, the preconditioned gradients; changes no state.
    ///
    /// # Errors
    /// [`Error::Shape`] with the layer, [`Error::Parameter`] for a low-rank gradient of a convolution, [`Error::EmptyBatch`] for one of no rows,
    /// [`Error::Missing`] before the first refresh; outputs as they were.
    pub fn precondition(&mut self, out: &mut [MatMut<'_, T>], gradients: &[Gradient<'_, T>]) -> Result<(), Error> {
        self.check_gradients(out, gradients)?;
        self.check_ready()?;
        let req = self.gradients_scratch(gradients);
        let stack = self.memory.stack(req);
        self.preconditioner.gather(gradients, self.par, stack)?;
        for (l, out) in out.iter_mut().enumerate() {
            precondition(&self.preconditioner, l, out.rb_mut(), Blend::set(T::one()), gradients[l], self.par, stack)?;
        }
        Ok(())
    }

    /// One step of the schedule: updates the weights; observes, if [`wants_observation`](Self::wants_observation) said so, else
    /// `observations` may be empty and is not read; refreshes when due.
    ///
    /// # Errors
    /// As [`observe`](Self::observe), [`refresh`](Self::refresh) and [`precondition`](Self::precondition); weights and state as they were.
    pub fn step(
        &mut self,
        weights: &mut [MatMut<'_, T>],
        gradients: &[Gradient<'_, T>],
        observations: &[Observation<'_, T>],
    ) -> Result<(), Error> {
        self.advance(weights, gradients, observations, Self::update)
    }

    /// A step of the schedule as [`step`](Self::step), but for how the weights change: by `delta = alpha D + mu delta_prev`, both from the exact
    /// quadratic model of the Fisher matrix of `batch` with damping `lambda + l2` (Martens & Grosse 2015, section 7), for any method's `D`.
    /// With momentum in the options `delta_prev` is the last change, which takes the place of `V`; without, `mu = 0`. Learning rate, `mu` and
    /// weight decay of the options are not used: add an l2 penalty to the gradients, and name its coefficient `l2`.
    ///
    /// The model's change and the losses before and after give the [`reduction_ratio`](super::reduction_ratio), and that
    /// [`LevenbergMarquardt`](super::LevenbergMarquardt) the next damping.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`Error::Parameter`] for an `l2` that is negative or not finite; as [`QuadraticModel`], where the schedule's
    /// observations and refreshes of this step are kept and the weights are as they were.
    pub fn step_by_model(
        &mut self,
        weights: &mut [MatMut<'_, T>],
        gradients: &[Gradient<'_, T>],
        observations: &[Observation<'_, T>],
        batch: &[LayerBatch<'_, T>],
        l2: f64,
    ) -> Result<ModelStep, Error> {
        check_parameter("l2", l2, l2 >= 0.0 && l2.is_finite(), "a finite number, not negative")?;
        check_shape("batch", &[self.layers().len()], &[batch.len()])?;
        self.advance(weights, gradients, observations, |optimizer, weights, gradients| {
            optimizer.update_by_model(weights, gradients, batch, l2)
        })
    }

    /// One step of the schedule around an update of the weights.
    fn advance<R>(
        &mut self,
        weights: &mut [MatMut<'_, T>],
        gradients: &[Gradient<'_, T>],
        observations: &[Observation<'_, T>],
        update: impl FnOnce(&mut Self, &mut [MatMut<'_, T>], &[Gradient<'_, T>]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.check_gradients(weights, gradients)?;
        let (observing, refreshing) = (self.schedule.observes(self.t), self.schedule.refreshes(self.t));
        let refresh_first = refreshing && self.schedule.order == Order::RefreshFirst;
        if !refresh_first {
            self.check_ready()?;
        }
        if observing {
            self.preconditioner.state().check(observations)?;
        }
        // What can fail comes first; what is refreshed is put to use before or after the weights change, as the order says. What is observed may
        // have another size than what was before it: scratch is asked for as late as it is needed.
        if refreshing {
            self.preconditioner.state_mut().backup();
        }
        if observing {
            let req = self.preconditioner.observe_scratch(observations, self.par);
            self.preconditioner.observe(observations, self.par, self.memory.stack(req))?;
        }
        if refreshing {
            let req = self.preconditioner.state().prepare_scratch(self.par);
            if let Err(error) = self.preconditioner.prepare(self.par, self.memory.stack(req)) {
                self.preconditioner.state_mut().restore();
                return Err(error);
            }
        }
        if refresh_first {
            self.preconditioner.state_mut().commit();
        }
        let updated = update(self, weights, gradients)?;
        if refreshing && !refresh_first {
            self.preconditioner.state_mut().commit();
        }
        self.t += 1;
        Ok(updated)
    }

    /// `delta <- alpha D + mu delta`, `W <- W + delta`, `Wbar` as [`update`](Self::update).
    fn update_by_model(
        &mut self,
        weights: &mut [MatMut<'_, T>],
        gradients: &[Gradient<'_, T>],
        batch: &[LayerBatch<'_, T>],
        l2: f64,
    ) -> Result<ModelStep, Error> {
        let (par, req) = (self.par, self.model_scratch(gradients, batch));
        let Optimizer { preconditioner, momentum, average, memory, step: options, t, .. } = self;
        let all = memory.stack(req);
        preconditioner.gather(gradients, par, all)?;
        let layers = preconditioner.state().layers();
        let (mut memory, stack) = temporary::<T>(all, weight_count(layers));
        let mut rest = &mut memory[..];
        for (l, layer) in layers.iter().enumerate() {
            let d = matrix_mut(cut(&mut rest, layer.weights()), layer.weight_shape());
            precondition(preconditioner, l, d, Blend::set(T::one()), gradients[l], par, stack)?;
        }
        let step = {
            let (directions, stack) = stack.collect(matrices(&memory, layers));
            let deltas = momentum.iter().zip(layers).map(|(delta, layer)| matrix(delta, layer.weight_shape()));
            let (deltas, stack) = stack.collect(deltas);
            let (u, stack) = list(stack, layers.iter().zip(gradients).map(|(layer, &u)| direction(layer, u)))?;
            let previous = (!deltas.is_empty()).then_some(&deltas[..]);
            let model = QuadraticModel::new(batch, &u, &directions, previous, par, stack)?;
            model.step_with_momentum(preconditioner.damping() + l2)?
        };
        for (l, (w, d)) in weights.iter_mut().zip(matrices(&memory, layers)).enumerate() {
            let alpha = T::from_f64(step.alpha);
            match momentum.get_mut(l) {
                None => blend_into(w.rb_mut(), Blend::add(alpha), d, par),
                Some(delta) => {
                    let mut delta = matrix_mut(delta, d.shape());
                    blend_into(delta.rb_mut(), Blend { alpha, beta: T::from_f64(step.mu) }, d, par);
                    blend_into(w.rb_mut(), Blend::add(T::one()), delta.as_ref(), par);
                }
            }
            follow(average.get_mut(l), options, *t, w.as_ref(), par);
        }
        Ok(step)
    }

    /// Scratch of [`update_by_model`](Self::update_by_model).
    fn model_scratch(&self, gradients: &[Gradient<'_, T>], batch: &[LayerBatch<'_, T>]) -> StackReq {
        let layers = self.layers();
        let directions = layers.iter().zip(gradients).filter_map(|(layer, &u)| direction(layer, u).ok());
        let lists = [StackReq::new::<MatRef<'_, T>>(layers.len()); 2];
        let u = StackReq::new::<Direction<'_, T>>(layers.len());
        let model = StackReq::all_of(&lists).and(u).and(model_scratch(batch, directions, self.par));
        let work = model.or(self.gradients_scratch(gradients));
        temporary_scratch::<T>(weight_count(layers)).and(work)
    }

    /// `V <- mu V + D`, `W <- (1 - eta w) W - eta V`, `Wbar <- xi Wbar + (1 - xi) W`.
    fn update(&mut self, weights: &mut [MatMut<'_, T>], gradients: &[Gradient<'_, T>]) -> Result<(), Error> {
        let StepOptions { learning_rate, momentum, momentum_start, weight_decay, .. } = self.step;
        let number = T::from_f64;
        let change = Blend { alpha: number(-learning_rate), beta: number(1.0 - learning_rate * weight_decay) };
        let mu = if self.t < momentum_start { T::zero() } else { number(momentum) };
        let req = self.gradients_scratch(gradients);
        let stack = self.memory.stack(req);
        self.preconditioner.gather(gradients, self.par, stack)?;
        for (l, w) in weights.iter_mut().enumerate() {
            let layer = self.preconditioner.state().layers()[l];
            match self.momentum.get_mut(l) {
                // Without momentum one product changes the weights.
                None => precondition(&self.preconditioner, l, w.rb_mut(), change, gradients[l], self.par, stack)?,
                Some(v) => {
                    let mut v = MatMut::new(v, layer.weight_shape())?;
                    let blend = Blend { alpha: T::one(), beta: mu };
                    precondition(&self.preconditioner, l, v.rb_mut(), blend, gradients[l], self.par, stack)?;
                    blend_into(w.rb_mut(), change, v.as_ref(), self.par);
                }
            }
            follow(self.average.get_mut(l), &self.step, self.t, w.as_ref(), self.par);
        }
        Ok(())
    }

    /// The cosine between two updates of a layer in FOOF's metric, `<D, D'> = tr(D (c A + lambda I) D'^T)`, with the running input factor; of
    /// a convolution the sum over its groups, each with its own.
    ///
    /// # Errors
    /// As [`metric_cosine`](super::metric_cosine), and [`Error::Missing`] before anything was observed.
    pub fn metric_cosine(&self, layer: usize, a: MatRef<'_, T>, b: MatRef<'_, T>, damping: T) -> Result<T, Error> {
        let (count, observed) = (self.layers().len(), self.preconditioner.counters()[0]);
        check_parameter("layer", layer as f64, layer < count, "a layer's number")?;
        if observed == 0 {
            return Err(Error::Missing { what: "observations", needed_for: "the metric is made of them" });
        }
        let state = self.preconditioner.state();
        check_shape("a", &[state.layers()[layer].outputs(), a.cols()], &a.shape())?;
        let factors = state.blocks(layer).map(|block| state.input_factor(block));
        let Some(blocks) = factors.collect::<Option<Vec<_>>>() else {
            return Err(Error::Missing { what: "an input factor", needed_for: "the metric is made of it" });
        };
        blocks_cosine(a, b, blocks.into_iter(), damping, self.par)
    }
}

/// `Wbar <- xi Wbar + (1 - xi) W` of a layer at step `t`, if averages are kept.
fn follow<T: Element>(average: Option<&mut Vec<T>>, step: &StepOptions, t: u64, w: MatRef<'_, T>, par: Par) {
    if let (Some(average), Some(cap)) = (average, step.polyak) {
        let xi = T::from_f64((1.0 - 1.0 / (t + 1) as f64).min(cap));
        blend_into(matrix_mut(average, w.shape()), Blend { alpha: T::one() - xi, beta: xi }, w, par);
    }
}

/// The weights of all layers.
fn weight_count(layers: &[Layer]) -> usize {
    layers.iter().map(Layer::weights).sum()
}

/// The layers' matrices in a vector of all weights.
fn matrices<'a, T: Element>(mut rest: &'a [T], layers: &'a [Layer]) -> impl Iterator<Item = MatRef<'a, T>> {
    layers.iter().map(move |layer| {
        let (values, tail) = rest.split_at(layer.weights());
        rest = tail;
        matrix(values, layer.weight_shape())
    })
}

/// `out <- beta out + alpha D` of a layer, block of rows by block of rows.
fn precondition<T: Element, P: Preconditioner<T>>(
    preconditioner: &P,
    l: usize,
    mut out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let layer = &preconditioner.state().layers()[l];
    let (gradient, blocks) = (with_constant(layer, gradient), preconditioner.state().blocks(l));
    let rows = layer.outputs() / blocks.len();
    for (group, block) in blocks.enumerate() {
        let range = group * rows..(group + 1) * rows;
        let (out, gradient) = (out.rb_mut().row_range(range.clone()), gradient.row_range(range));
        preconditioner.precondition(block, out, blend, gradient, par, stack)?;
    }
    Ok(())
}

/// Scratch of [`precondition`]: the blocks of a layer have one shape.
fn precondition_scratch<T: Element, P: Preconditioner<T>>(
    preconditioner: &P,
    l: usize,
    rows: Option<usize>,
    par: Par,
) -> StackReq {
    preconditioner.precondition_scratch(preconditioner.state().blocks(l).start, rows, par)
}

/// A convolution's gradient is a matrix: its low-rank form would be its unfolded inputs. One in low rank is the mean over some rows.
fn check_form<T: Element>(layer: &Layer, gradient: Gradient<'_, T>) -> Result<(), Error> {
    match (layer.convolution(), gradient.rows()) {
        (None, Some(0)) => Err(Error::EmptyBatch { argument: "gradient", shape: vec![0, layer.inputs()] }),
        (Some(_), Some(rows)) => {
            let expected = "none: the gradient of a convolution is a matrix";
            check_parameter("gradient.rows", rows as f64, false, expected)
        }
        _ => Ok(()),
    }
}

/// The gradient with the constant 1 that a layer's bias sees.
pub(super) fn with_constant<'a, T: Element>(layer: &Layer, gradient: Gradient<'a, T>) -> Gradient<'a, T> {
    match layer.bias() {
        Bias::With => gradient.with_constant(layer.factor_input()),
        Bias::Without => gradient,
    }
}
