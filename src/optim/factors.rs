//! Running factors of all layers, and what is made of them at a refresh.

use super::activations::{Activations, Datapoints, Observation};
use super::blocks::{Blocks, Kind, Side};
use super::preconditioner::{Entry, State};
use crate::convolution::{FactorPlan, Side as Images};
use crate::covariance::{Centring, FactorOptions};
use crate::error::{check_parameter, check_shape};
use crate::layer::Layer;
use crate::{Bias, Element, Error, MatRef, MemStack, Par, StackReq, Triangle};
use core::ops::Range;

/// Numbers beside the factors that a refresh replaces: gains, moments.
pub(super) struct Extra<T> {
    name: String,
    shape: Vec<usize>,
    pub(super) used: Vec<T>,
    pub(super) prepared: Vec<T>,
    backup: Vec<T>,
}

impl<T: Element> Extra<T> {
    pub(super) fn new(name: String, shape: &[usize], value: T) -> Self {
        let buffer = || vec![value; shape.iter().product()];
        Extra { name, shape: shape.to_vec(), used: buffer(), prepared: buffer(), backup: buffer() }
    }
}

/// The factors of all layers.
pub struct Factors<T> {
    layers: Vec<Layer>,
    /// How the input factor of each convolution is computed, decided once.
    plans: Vec<Option<FactorPlan>>,
    decay: f64,
    centring: Centring,
    /// The error factors are there only where they are used.
    pub(super) blocks: Blocks<T>,
    pub(super) extras: Vec<Extra<T>>,
    count: u64,
    backup_count: u64,
    ready: bool,
}

/// What the factors of an optimiser are.
pub(super) struct Setting {
    pub(super) decay: f64,
    pub(super) centring: Centring,
    pub(super) kind: Kind,
    pub(super) with_errors: bool,
}

impl<T: Element> Factors<T> {
    pub(super) fn new(layers: &[Layer], setting: Setting, par: Par) -> Result<Self, Error> {
        let Setting { decay, centring, kind, with_errors } = setting;
        for (l, layer) in layers.iter().enumerate() {
            let good = layer.convolution().is_none() || centring == Centring::Raw;
            check_parameter("centring", 1.0, good, "Centring::Raw: patches of convolutions are not centred")
                .map_err(|error| error.in_layer(l))?;
        }
        let plan = |layer: &Layer| layer.convolution().map(|conv| FactorPlan::new::<T>(&conv.volumes(), par));
        let plans = layers.iter().map(plan).collect();
        let (blocks, layers, extras) = (Blocks::new(layers, kind, with_errors), layers.to_vec(), Vec::new());
        Ok(Factors { layers, plans, decay, centring, blocks, extras, count: 0, backup_count: 0, ready: false })
    }

    pub(super) fn with_extras(self, extras: Vec<Extra<T>>) -> Self {
        Factors { extras, ..self }
    }

    /// `c = 1 / (1 - m^k)`.
    fn correction(&self) -> Option<T> {
        // Powers beyond i32 have long vanished.
        let power = self.decay.powi(self.count.min(i32::MAX as u64) as i32);
        (self.count > 0).then(|| T::from_f64(1.0 / (1.0 - power)))
    }

    /// The correction `c` for a refresh.
    pub(super) fn needed_correction(&self) -> Result<T, Error> {
        let needed_for = "a refresh needs at least one mini-batch";
        self.correction().ok_or(Error::Missing { what: "observations", needed_for })
    }

    fn options(&self, layer: &Layer, side: Images) -> FactorOptions {
        let (bias, centring) = match side {
            Images::Inputs => (layer.bias(), self.centring),
            Images::Outputs => (Bias::Without, Centring::Raw),
        };
        let (sharing, triangle) = (layer.sharing(), Triangle::Lower);
        FactorOptions { sharing, bias, centring, triangle, decay: self.decay, ..Default::default() }
    }

    pub(super) fn layer(&self, layer: usize) -> &Layer {
        &self.layers[layer]
    }

    /// The decay as the factors use it.
    pub(super) fn decay(&self) -> T {
        T::from_f64(self.decay)
    }

    /// `[o, i]` of a block of weights.
    pub(super) fn block_shape(&self, block: usize) -> [usize; 2] {
        let layer = &self.layers[self.blocks.layer(block)];
        [layer.factor_error(), layer.factor_input()]
    }

    /// Inputs or errors of layer `l`, if they are whole datapoints of it.
    pub(super) fn datapoints<'a>(
        &self,
        l: usize,
        side: Images,
        seen: Activations<'a, T>,
    ) -> Result<Datapoints<'a, '_, T>, Error> {
        datapoints(&self.layers[l], self.plans[l].as_ref(), side, seen)
    }

    pub(super) fn parts(&mut self, l: usize) -> Parts<'_, T> {
        let Factors { layers, plans, blocks, extras, .. } = self;
        Parts { layer: &layers[l], plan: plans[l].as_ref(), factors: blocks, extras }
    }

    /// Whether a layer's part of a mini-batch can be observed.
    fn check_layer(&self, l: usize, seen: &Observation<'_, T>) -> Result<(), Error> {
        let x = self.datapoints(l, Images::Inputs, seen.inputs)?;
        seen.inputs.check_finite("inputs")?;
        if !self.blocks.has_errors() {
            return Ok(());
        }
        let needed_for = "the error factor needs the errors of sampled or given labels";
        let errors = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
        let e = self.datapoints(l, Images::Outputs, errors)?;
        let n = x.count();
        let labels = (e.count() / n).max(1);
        errors.check_count("errors", labels * n, &e)?;
        errors.check_finite("errors")
    }
}

/// The parts of [`Factors`] that moments are observed with.
pub(super) struct Parts<'f, T> {
    pub(super) layer: &'f Layer,
    pub(super) plan: Option<&'f FactorPlan>,
    pub(super) factors: &'f Blocks<T>,
    pub(super) extras: &'f mut [Extra<T>],
}

/// Inputs or errors of a layer, if they are whole datapoints of it.
pub(super) fn datapoints<'a, 'p, T: Element>(
    layer: &Layer,
    plan: Option<&'p FactorPlan>,
    side: Images,
    seen: Activations<'a, T>,
) -> Result<Datapoints<'a, 'p, T>, Error> {
    let argument = if side == Images::Inputs { "inputs" } else { "errors" };
    seen.datapoints(argument, side, layer, plan)
}

impl<T: Element> State<T> for Factors<T> {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn blocks(&self, layer: usize) -> Range<usize> {
        let first = self.layers[..layer].iter().map(Layer::groups).sum();
        first..first + self.layers[layer].groups()
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, observation) in observations.iter().enumerate() {
            self.check_layer(l, observation).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn observe(&mut self, observations: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.check(observations)?;
        for (l, observation) in observations.iter().enumerate() {
            let (layer, blocks) = (self.layers[l], self.blocks(l));
            let [inputs, errors] = [Images::Inputs, Images::Outputs].map(|side| self.options(&layer, side));
            let Factors { plans, blocks: factors, .. } = self;
            let plan = plans[l].as_ref();
            let x = datapoints(&layer, plan, Images::Inputs, observation.inputs)?;
            let (groups, size) = (layer.groups(), layer.factor_input());
            let out = factors.running_mut(Side::Input, blocks.clone());
            x.input_factor(out, [groups, size, size], &inputs, par, stack)?;
            if let (Some(e), true) = (observation.errors, factors.has_errors()) {
                let e = datapoints(&layer, plan, Images::Outputs, e)?;
                let options = FactorOptions { rows_per_datapoint: e.count() / x.count(), ..errors };
                let size = layer.factor_error();
                let out = factors.running_mut(Side::Error, blocks);
                e.error_factor(out, [groups, size, size], &options, par, stack)?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq {
        self.layers.iter().zip(observations).enumerate().fold(StackReq::empty(), |req, (l, (layer, seen))| {
            let side = |seen: Option<Activations<'_, T>>, side: Images| {
                let datapoints = seen.and_then(|seen| self.datapoints(l, side, seen).ok());
                datapoints.map_or(StackReq::empty(), |x| x.factor_scratch(side, &self.options(layer, side), par))
            };
            req.or(side(Some(seen.inputs), Images::Inputs)).or(side(seen.errors, Images::Outputs))
        })
    }

    fn backup(&mut self) {
        self.backup_count = self.count;
        self.blocks.backup();
        self.extras.iter_mut().for_each(|extra| extra.backup.copy_from_slice(&extra.used));
    }

    fn restore(&mut self) {
        self.count = self.backup_count;
        self.blocks.restore();
        self.extras.iter_mut().for_each(|extra| extra.used.copy_from_slice(&extra.backup));
    }

    fn prepare_scratch(&self, par: Par) -> StackReq {
        self.blocks.prepare_scratch(par)
    }

    fn commit(&mut self) {
        self.ready = true;
        self.blocks.commit();
        self.extras.iter_mut().for_each(|extra| core::mem::swap(&mut extra.used, &mut extra.prepared));
    }

    fn input_factor(&self, block: usize) -> Option<(MatRef<'_, T>, T)> {
        Some((self.blocks.running(Side::Input, block), self.correction().unwrap_or(T::one())))
    }

    fn entries(&self) -> Vec<Entry<'_, T>> {
        let mut entries = self.blocks.entries();
        entries.extend(self.extras.iter().map(|e| (e.name.clone(), e.shape.clone(), &e.used[..])));
        entries
    }

    fn entries_mut(&mut self) -> Vec<&mut [T]> {
        let mut entries = self.blocks.entries_mut();
        entries.extend(self.extras.iter_mut().map(|e| &mut e.used[..]));
        entries
    }

    fn counters(&self) -> [u64; 2] {
        [self.count, u64::from(self.ready)]
    }

    fn set_counters(&mut self, [count, ready]: [u64; 2]) {
        (self.count, self.ready) = (count, ready == 1);
    }
}
