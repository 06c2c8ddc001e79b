//! What an optimiser asks of its preconditioner.

use super::activations::Observation;
use super::options::{Schedule, StepOptions};
use crate::kronecker::Gradient;
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use core::ops::Range;

/// A numbered part of the saved state: name, shape, values.
pub type Entry<'a, T> = (String, Vec<usize>, &'a [T]);

/// What a preconditioner has gathered of its layers: running averages, and what the last refresh made of them.
pub trait State<T: Element> {
    /// The layers.
    fn layers(&self) -> &[Layer];

    /// The blocks of rows of a layer's weights, numbered through all layers, that are preconditioned each by itself: the groups of a
    /// convolution, or the layer.
    fn blocks(&self, layer: usize) -> Range<usize>;

    /// Whether there is something to precondition with.
    fn is_ready(&self) -> bool;

    /// Whether `observe` would succeed with enough scratch.
    ///
    /// # Errors
    /// Shapes that disagree, missing errors, empty batches, NaN or infinity.
    fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error>;

    /// Takes a checked mini-batch into the running averages.
    ///
    /// # Errors
    /// As [`check`](State::check).
    fn observe(&mut self, observations: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error>;

    /// Scratch of [`observe`](State::observe).
    fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq;

    /// Remembers the running averages.
    fn backup(&mut self);

    /// Returns to the running averages remembered.
    fn restore(&mut self);

    /// Scratch of [`Preconditioner::prepare`].
    fn prepare_scratch(&self, par: Par) -> StackReq;

    /// Puts to use what was prepared.
    fn commit(&mut self);

    /// The running input factor of a block, its lower triangle, and the factor `c` that corrects it for its start at zero; a method without
    /// factors has none.
    fn input_factor(&self, block: usize) -> Option<(MatRef<'_, T>, T)>;

    /// The state's numbers.
    fn entries(&self) -> Vec<Entry<'_, T>>;

    /// The same, to be overwritten.
    fn entries_mut(&mut self) -> Vec<&mut [T]>;

    /// The datapoints that a saved state keeps, running and in use, from the first axis of each of its entries; zeros of a method that keeps none.
    fn datapoints(&self, _first: &dyn Fn(&str) -> Option<usize>) -> [usize; 2] {
        [0; 2]
    }

    /// Names and shapes of the entries of a state that keeps so many.
    fn shapes(&self, _datapoints: [usize; 2]) -> Vec<(String, Vec<usize>)> {
        self.entries().into_iter().map(|(name, shape, _)| (name, shape)).collect()
    }

    /// Makes room for so many in [`entries_mut`](State::entries_mut).
    fn resize(&mut self, _datapoints: [usize; 2]) {}

    /// The number of mini-batches observed, and whether something is in use (0 or 1).
    fn counters(&self) -> [u64; 2];

    /// Sets them.
    fn set_counters(&mut self, counters: [u64; 2]);
}

/// Turns gradients into updates with what it has observed.
pub trait Preconditioner<T: Element>: Sized {
    /// Options of the optimiser.
    type Options;
    /// What it gathers.
    type State: State<T>;
    /// Name in saved states.
    const NAME: &'static str;

    /// Empty state.
    ///
    /// # Errors
    /// [`Error::Parameter`] for options outside their range, or that a layer does not allow.
    fn new(layers: &[Layer], options: &Self::Options, par: Par) -> Result<Self, Error>;

    /// Schedule and step of the options.
    fn settings(options: &Self::Options) -> (Schedule, StepOptions);

    /// The options that the state's numbers depend on, by name: a state is loaded only where they are the same.
    fn rules(&self) -> Vec<(&'static str, String)>;

    /// What was gathered.
    fn state(&self) -> &Self::State;

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut Self::State;

    /// As [`State::observe`], and what else the method observes.
    ///
    /// # Errors
    /// As [`State::check`].
    fn observe(&mut self, observations: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.state_mut().observe(observations, par, stack)
    }

    /// Scratch of [`observe`](Preconditioner::observe).
    fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq {
        self.state().observe_scratch(observations, par)
    }

    /// Computes what [`State::commit`] will put to use, and nothing else.
    ///
    /// # Errors
    /// [`Error::Missing`] before anything was observed; [`Error::NotFinite`] for a factor that overflowed; [`Error::NotPositiveDefinite`];
    /// all but the first with the layer.
    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error>;

    /// `lambda`.
    fn damping(&self) -> f64;

    /// Changes `lambda`, which is positive and finite: for refreshes from now on, and at once where it is not part of what they make.
    fn set_damping(&mut self, damping: f64);

    /// Takes the gradients of all layers together, where they are not preconditioned each by itself: before [`precondition`] of each layer.
    ///
    /// [`precondition`]: Preconditioner::precondition
    ///
    /// # Errors
    /// [`Error::Scratch`].
    fn gather(&mut self, _gradients: &[Gradient<'_, T>], _par: Par, _stack: &mut MemStack) -> Result<(), Error> {
        Ok(())
    }

    /// Scratch of [`gather`](Preconditioner::gather).
    fn gather_scratch(&self, _gradients: &[Gradient<'_, T>], _par: Par) -> StackReq {
        StackReq::EMPTY
    }

    /// `out <- beta out + alpha D`, `D` the preconditioned gradient of a block.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
    fn precondition(
        &self,
        block: usize,
        out: MatMut<'_, T>,
        blend: Blend<T>,
        gradient: Gradient<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error>;

    /// Scratch of [`precondition`](Preconditioner::precondition) for a low-rank gradient of `rows` rows, or a matrix.
    fn precondition_scratch(&self, block: usize, rows: Option<usize>, par: Par) -> StackReq;

    /// The state's numbers.
    fn entries(&self) -> Vec<Entry<'_, T>> {
        self.state().entries()
    }

    /// As [`State::counters`].
    fn counters(&self) -> [u64; 2] {
        self.state().counters()
    }
}
