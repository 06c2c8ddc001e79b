//! What an optimiser asks of its preconditioner.

use super::options::{Schedule, StepOptions};
use crate::kronecker::Gradient;
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};

/// What a layer shows of a mini-batch: a row for each datapoint and position, the positions of a datapoint next to each other.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a, T> {
    /// Inputs, `[N T, i]`, without the constant 1 of a bias.
    pub inputs: MatRef<'a, T>,
    /// Errors of each datapoint's own loss (not divided by N), `[N T, o]`; for a full Fisher information `[N C T, o]`, the `C` labels of a
    /// datapoint next to each other, scaled by `sqrt(p_c)`. FOOF needs none.
    pub errors: Option<MatRef<'a, T>>,
}

/// A numbered part of the saved state: name, shape, values.
pub type Entry<'a, T> = (String, Vec<usize>, &'a [T]);

/// Per-layer state that turns gradients into updates.
pub trait Preconditioner<T: Element>: Sized {
    /// Options of the optimiser.
    type Options;
    /// Name in saved states.
    const NAME: &'static str;

    /// Empty state.
    ///
    /// # Errors
    /// [`Error::Parameter`] for options outside their range.
    fn new(layers: &[Layer], options: &Self::Options) -> Result<Self, Error>;

    /// Schedule and step of the options.
    fn settings(options: &Self::Options) -> (Schedule, StepOptions);

    /// The layers.
    fn layers(&self) -> &[Layer];

    /// Whether there is something to precondition with.
    fn is_ready(&self) -> bool;

    /// Whether `observe` would succeed with enough scratch.
    ///
    /// # Errors
    /// Shapes that disagree, missing errors, empty batches, NaN or infinity.
    fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error>;

    /// Takes a checked mini-batch into the running factors.
    ///
    /// # Errors
    /// As [`check`](Preconditioner::check).
    fn observe(&mut self, observations: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error>;

    /// Scratch of [`observe`](Preconditioner::observe).
    fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq;

    /// Remembers the running factors.
    fn backup(&mut self);

    /// Returns to the running factors remembered.
    fn restore(&mut self);

    /// Computes what [`commit`](Preconditioner::commit) will put to use, and nothing else.
    ///
    /// # Errors
    /// [`Error::Missing`] before anything was observed; [`Error::NotPositiveDefinite`].
    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error>;

    /// Scratch of [`prepare`](Preconditioner::prepare).
    fn prepare_scratch(&self, par: Par) -> StackReq;

    /// Puts to use what was prepared.
    fn commit(&mut self);

    /// `out <- beta out + alpha D`, `D` the preconditioned gradient of a layer.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
    fn precondition(
        &self,
        layer: usize,
        out: MatMut<'_, T>,
        blend: Blend<T>,
        gradient: Gradient<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error>;

    /// Scratch of [`precondition`](Preconditioner::precondition) for a low-rank gradient of `rows` rows, or a matrix.
    fn precondition_scratch(&self, layer: usize, rows: Option<usize>, par: Par) -> StackReq;

    /// The running, bias-corrected input factor of a layer, its lower triangle, and the factor `c` that corrects it.
    fn input_factor(&self, layer: usize) -> (MatRef<'_, T>, T);

    /// The state's numbers.
    fn entries(&self) -> Vec<Entry<'_, T>>;

    /// The same, to be overwritten.
    fn entries_mut(&mut self) -> Vec<&mut [T]>;

    /// The number of mini-batches observed, and whether factors are in use (0 or 1).
    fn counters(&self) -> [u64; 2];

    /// Sets them.
    fn set_counters(&mut self, counters: [u64; 2]);
}
