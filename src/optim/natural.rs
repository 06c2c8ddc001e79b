//! The exact natural gradient of a kept mini-batch.

use super::activations::Observation;
use super::blocks::matrix_mut;
use super::kept::{Frame, Kept};
use super::optimizer::with_constant;
use super::options::{Order, Schedule, StepOptions, check_factors};
use super::preconditioner::{Entry, Preconditioner, State};
use super::systems::Systems;
use crate::dense::{blend_into, list};
use crate::error::{check_parameter, check_scratch};
use crate::kronecker::Gradient;
use crate::layer::Layer;
use crate::woodbury::{Direction, LayerBatch, Refinement, SystemPrecision};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use core::ops::Range;
use foof_kernels::woodbury::{Weights, sum};

/// Which blocks of the Fisher matrix are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FisherBlocks {
    /// All: one system for the whole network.
    #[default]
    Whole,
    /// Those of each layer with itself: a system for each layer, solved as one list.
    Diagonal,
}

/// Options of [`NaturalGradient`](super::NaturalGradient).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NaturalGradientOptions {
    /// `lambda > 0`
    pub damping: f64,
    /// Which blocks of `F` are kept.
    pub blocks: FisherBlocks,
    /// The datapoints of a mini-batch that memory is taken for. `F` is of whatever mini-batch is observed, the mean over its own datapoints, and a
    /// step costs what their number costs; one of more makes the memory grow, once.
    pub fisher_batch: usize,
    /// `C`, rows of errors for each of them: 1 for sampled or the data's labels; all labels, weighted, for the full Fisher matrix
    /// ([`labels::full_errors`](crate::labels::full_errors)).
    pub labels: usize,
    /// The precision of the system `lambda I + G^T G`.
    pub precision: SystemPrecision,
    /// Whether a step is refined: memory for two more vectors of all weights; the steps of a solve are taken twice, and a
    /// residual between them.
    pub refinement: Refinement,
    /// When a mini-batch is observed (the last one counts) and its system factored: `T` is the number of steps that a factor serves.
    pub schedule: Schedule,
    /// How weights follow.
    pub step: StepOptions,
}

impl NaturalGradientOptions {
    /// The whole `F` of each step's own mini-batch with one label for each of its datapoints, of which `fisher_batch` are expected, `lambda = 1`, in the data's precision.
    ///
    /// Observed before the step (`RefreshFirst`), with the gradient of the same mini-batch, this is the natural gradient of one mini-batch.
    /// Two independent ones, one for the gradient and one for `F`, remove a bias (Benzing 2022, I.5): show the step the observations of another
    /// mini-batch, or use `StepFirst`, where `F` is of the step before.
    pub fn new(fisher_batch: usize) -> Self {
        let schedule = Schedule { period: 1, observe: 1, initial: 1, order: Order::RefreshFirst };
        let (blocks, step) = (FisherBlocks::Whole, StepOptions::default());
        let (precision, refinement) = (SystemPrecision::Working, Refinement::None);
        NaturalGradientOptions { damping: 1.0, blocks, fisher_batch, labels: 1, precision, refinement, schedule, step }
    }
}

/// What a mini-batch must be.
const FITS: &str = "a number whose systems fit in memory";

/// The natural gradient's state: the mini-batch last observed, the one in use, and the factored systems `lambda I + G^T G` of the latter.
pub struct FisherFactors<T> {
    layers: Vec<Layer>,
    frame: Frame,
    options: NaturalGradientOptions,
    /// Mini-batches: the one last observed, the one in use, and room for the next.
    kept: [Kept<T>; 3],
    running: usize,
    used: usize,
    backup: usize,
    systems: Systems<T>,
    /// The refined `(F + lambda I)^-1 u` of the gradient last gathered; empty without refinement.
    refined: Vec<Vec<T>>,
    count: u64,
    backup_count: u64,
    ready: bool,
}

impl<T: Element> FisherFactors<T> {
    /// The layers of system `s`.
    fn members(&self, s: usize) -> Range<usize> {
        match self.options.blocks {
            FisherBlocks::Whole => 0..self.layers.len(),
            FisherBlocks::Diagonal => s..s + 1,
        }
    }

    /// Equations of a system of a kept mini-batch.
    fn rows(&self, kept: usize) -> usize {
        self.frame.rows(self.kept[kept].datapoints())
    }

    /// The mini-batch in use, layer by layer: what [`fisher`](crate::fisher) and [`woodbury`](crate::woodbury) take.
    ///
    /// # Errors
    /// [`Error::Missing`] before the first refresh.
    pub fn used_batch(&self) -> Result<Vec<LayerBatch<'_, T>>, Error> {
        if !self.ready {
            return Err(Error::Missing { what: "refresh", needed_for: "no mini-batch is in use" });
        }
        (0..self.layers.len()).map(|l| self.kept[self.used].layer(&self.frame, l)).collect()
    }

    /// The damping of the system in use.
    pub fn used_damping(&self) -> T {
        self.systems.used_damping()
    }

    /// Damping from the next refresh on.
    pub(super) fn set_damping(&mut self, damping: f64) {
        self.options.damping = damping;
    }
}

impl<T: Element> State<T> for FisherFactors<T> {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn blocks(&self, layer: usize) -> Range<usize> {
        layer..layer + 1
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        let n = self.frame.count(observations)?;
        check_parameter("datapoints", n as f64, self.frame.fits(self.systems.count(), n), FITS)?;
        self.frame.check(observations, n)
    }

    fn observe(&mut self, observations: &[Observation<'_, T>], _par: Par, _stack: &mut MemStack) -> Result<(), Error> {
        self.check(observations)?;
        let n = self.frame.count(observations)?;
        let free = (0..3).find(|&slot| slot != self.used && slot != self.running).unwrap_or(0);
        self.kept[free].copy(&self.frame, observations, n)?;
        self.running = free;
        self.count += 1;
        Ok(())
    }

    fn observe_scratch(&self, _observations: &[Observation<'_, T>], _par: Par) -> StackReq {
        StackReq::EMPTY
    }

    fn backup(&mut self) {
        (self.backup, self.backup_count) = (self.running, self.count);
    }

    fn restore(&mut self) {
        (self.running, self.count) = (self.backup, self.backup_count);
    }

    fn prepare_scratch(&self, par: Par) -> StackReq {
        let layer = |l| match self.kept[self.running].layer(&self.frame, l) {
            Ok(layer) => self.systems.form_scratch(&[layer], par),
            Err(_) => StackReq::OVERFLOW,
        };
        let form = (0..self.layers.len()).map(layer).fold(StackReq::EMPTY, StackReq::or);
        let list = StackReq::new::<LayerBatch<'_, T>>(self.layers.len());
        list.and(form).or(self.systems.factor_scratch(self.rows(self.running), par))
    }

    fn commit(&mut self) {
        (self.used, self.ready) = (self.running, true);
        self.systems.commit();
    }

    fn input_factor(&self, _block: usize) -> Option<(MatRef<'_, T>, T)> {
        None
    }

    fn entries(&self) -> Vec<Entry<'_, T>> {
        let kept = [self.running, self.used].map(|kept| &self.kept[kept]);
        let names = ["running", "used"].into_iter().zip(kept).flat_map(|(name, kept)| {
            let tensors = self.frame.tensors(kept.datapoints(), name).into_iter().zip(kept.values());
            tensors.map(|((name, shape), values)| (name, shape, values))
        });
        names.chain(self.systems.entries()).collect()
    }

    fn datapoints(&self, first: &dyn Fn(&str) -> Option<usize>) -> [usize; 2] {
        ["running", "used"].map(|kept| first(&format!("layer.0.input.{kept}")).unwrap_or(0).max(1))
    }

    fn shapes(&self, datapoints: [usize; 2]) -> Vec<(String, Vec<usize>)> {
        let tensors = ["running", "used"].into_iter().zip(datapoints).flat_map(|(name, n)| self.frame.tensors(n, name));
        tensors.chain(self.systems.shapes(self.frame.rows(datapoints[1]))).collect()
    }

    fn resize(&mut self, datapoints: [usize; 2]) {
        (self.running, self.used) = (0, 1);
        for (kept, n) in self.kept.iter_mut().zip(datapoints) {
            kept.resize(&self.frame, n);
        }
        self.systems.resize(self.frame.rows(datapoints[1]));
    }

    fn entries_mut(&mut self) -> Vec<&mut [T]> {
        let [running, used, _] = &mut self.kept;
        let tensors = running.tensors.iter_mut().chain(&mut used.tensors).flatten();
        tensors.map(|values| &mut values[..]).chain(self.systems.entries_mut()).collect()
    }

    fn counters(&self) -> [u64; 2] {
        [self.count, u64::from(self.ready)]
    }

    fn set_counters(&mut self, [count, ready]: [u64; 2]) {
        (self.count, self.ready) = (count, ready == 1);
    }
}

impl<T: Element> Preconditioner<T> for FisherFactors<T> {
    type Options = NaturalGradientOptions;
    type State = Self;
    const NAME: &'static str = "natural_gradient";

    fn new(layers: &[Layer], options: &NaturalGradientOptions, par: Par) -> Result<Self, Error> {
        check_factors::<T>(options.damping, 0.0)?;
        for (name, value) in [("fisher_batch", options.fisher_batch), ("labels", options.labels)] {
            check_parameter(name, value as f64, value > 0, "a positive number")?;
        }
        let frame = Frame::new::<T>(layers, options.labels, par);
        let count = match options.blocks {
            FisherBlocks::Whole => 1.min(layers.len()),
            FisherBlocks::Diagonal => layers.len(),
        };
        let n = options.fisher_batch;
        check_parameter("fisher_batch", n as f64, frame.fits(count, n), FITS)?;
        let systems = Systems::new(count, frame.rows(n), options.precision, T::from_f64(options.damping));
        let refined = match options.refinement {
            Refinement::None => Vec::new(),
            Refinement::Once => layers.iter().map(|layer| vec![T::zero(); layer.weights()]).collect(),
        };
        let kept = [(); 3].map(|()| Kept::new(&frame, n));
        let (layers, options) = (layers.to_vec(), *options);
        let (running, used, backup) = (0, 1, 0);
        let (count, backup_count, ready) = (0, 0, false);
        Ok(FisherFactors {
            layers,
            frame,
            options,
            kept,
            running,
            used,
            backup,
            systems,
            refined,
            count,
            backup_count,
            ready,
        })
    }

    fn settings(options: &NaturalGradientOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    fn rules(&self) -> Vec<(&'static str, String)> {
        let NaturalGradientOptions { damping, blocks, labels, precision, refinement, .. } = self.options;
        vec![
            ("damping", format!("{damping:?}")),
            ("blocks", format!("{blocks:?}")),
            ("labels", labels.to_string()),
            ("precision", format!("{precision:?}")),
            ("refinement", format!("{refinement:?}")),
        ]
    }

    fn state(&self) -> &Self {
        self
    }

    fn state_mut(&mut self) -> &mut Self {
        self
    }

    fn damping(&self) -> f64 {
        self.options.damping
    }

    fn set_damping(&mut self, damping: f64) {
        FisherFactors::set_damping(self, damping);
    }

    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        if self.count == 0 {
            let needed_for = "a refresh needs at least one mini-batch";
            return Err(Error::Missing { what: "observations", needed_for });
        }
        check_scratch(stack, self.prepare_scratch(par))?;
        self.systems.begin(self.rows(self.running));
        for s in 0..self.systems.count() {
            let layers = self.members(s).map(|l| self.kept[self.running].layer(&self.frame, l));
            let (batch, stack) = list(stack, layers)?;
            self.systems.form(s, &batch, par, stack)?;
        }
        self.systems.factor(T::from_f64(self.options.damping), par, stack)
    }

    fn gather(&mut self, gradients: &[Gradient<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        check_scratch(stack, self.gather_scratch(gradients, par))?;
        for s in 0..self.systems.count() {
            let (members, frame) = (self.members(s), &self.frame);
            let layers = members.clone().map(|l| self.kept[self.used].layer(frame, l));
            let (batch, stack) = list(stack, layers)?;
            let directions = members.clone().map(|l| direction(&frame.layers()[l], gradients[l]));
            let (u, stack) = list(stack, directions)?;
            if self.refined.is_empty() {
                self.systems.solve(s, &batch, &u, None, par, stack)?;
                continue;
            }
            let out = self.refined[members.clone()].iter_mut().zip(&self.layers[members]);
            let (mut out, stack) = stack.collect(out.map(|(x, layer)| matrix_mut(x, layer.weight_shape())));
            self.systems.solve(s, &batch, &u, Some(&mut out), par, stack)?;
        }
        Ok(())
    }

    fn gather_scratch(&self, gradients: &[Gradient<'_, T>], par: Par) -> StackReq {
        let each = |s: usize| -> StackReq {
            let members = self.members(s);
            let layers = members.clone().filter_map(|l| {
                let layer = self.kept[self.used].layer(&self.frame, l).ok()?;
                Some((layer, direction(&self.frame.layers()[l], gradients[l]).ok()?))
            });
            let (count, solve) = (members.len(), self.systems.solve_scratch(layers, self.options.refinement, par));
            let [batch, u] = [StackReq::new::<LayerBatch<'_, T>>(count), StackReq::new::<Direction<'_, T>>(count)];
            StackReq::all_of(&[batch, u, StackReq::new::<MatMut<'_, T>>(count), solve])
        };
        (0..self.systems.count()).map(each).fold(StackReq::EMPTY, StackReq::or)
    }

    /// `out <- beta out + (alpha / lambda) (U - G w)`, with the `w` of [`gather`](Preconditioner::gather), or its refined answer.
    fn precondition(
        &self,
        block: usize,
        mut out: MatMut<'_, T>,
        blend: Blend<T>,
        gradient: Gradient<'_, T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        if let Some(x) = self.refined.get(block) {
            blend_into(out, blend, MatRef::new(x, self.layers[block].weight_shape())?, par);
            return Ok(());
        }
        let layer = &self.frame.layers()[block];
        let kept = self.kept[self.used].layer(&self.frame, block)?;
        let s = if self.options.blocks == FisherBlocks::Whole { 0 } else { block };
        let term = (kept.0, Weights::Each(self.systems.solution(s)));
        let blend = Blend { alpha: blend.alpha / self.systems.used_damping(), ..blend };
        match direction(layer, gradient)? {
            Direction::Matrix(u) => {
                check_scratch(stack, sum::scratch(&kept.0, None, par))?;
                blend_into(out.rb_mut(), blend, u, par);
                sum::sum(out, None, Blend::add(blend.alpha), &term, None, par, stack);
            }
            Direction::LowRank { batch, scale } => {
                check_scratch(stack, sum::scratch(&batch.0, Some(&kept.0), par))?;
                sum::sum(out, None, blend, &(batch.0, Weights::All(scale)), Some(&term), par, stack);
            }
        }
        Ok(())
    }

    fn precondition_scratch(&self, block: usize, rows: Option<usize>, par: Par) -> StackReq {
        let Ok(kept) = self.kept[self.used].layer(&self.frame, block) else { return StackReq::OVERFLOW };
        let Some(rows) = rows else { return sum::scratch(&kept.0, None, par) };
        let [o, i] = self.layers[block].weight_shape();
        // Only sizes are read: every row may lie in the same place.
        let zero = [T::zero()];
        let view = |cols: usize| MatRef::strided(&zero, 0, [rows, cols], [0, 0]);
        let batch = view(i).and_then(|x| view(o).map(|e| (x, e))).ok();
        let batch = batch.and_then(|(x, e)| LayerBatch::new(&Layer::dense(i, o).ok()?, x, e).ok());
        batch.map_or(StackReq::OVERFLOW, |batch| sum::scratch(&batch.0, Some(&kept.0), par))
    }
}

/// A gradient as a direction. Rows of a low-rank one are what they are, whatever positions they come from.
pub(super) fn direction<'a, T: Element>(layer: &Layer, gradient: Gradient<'a, T>) -> Result<Direction<'a, T>, Error> {
    let outputs = layer.outputs();
    Ok(match with_constant(layer, gradient) {
        Gradient::Matrix(u) => Direction::Matrix(u),
        Gradient::LowRank { inputs, errors, scale } => Direction::LowRank {
            batch: LayerBatch::new(&Layer::dense(inputs.cols(), outputs)?, inputs, errors)?,
            scale,
        },
        Gradient::LowRankWithBias { inputs, errors, scale } => {
            let layer = Layer::dense(inputs.cols(), outputs)?.with_bias();
            Direction::LowRank { batch: LayerBatch::new(&layer, inputs, errors)?, scale }
        }
    })
}
