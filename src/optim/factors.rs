//! Running factors of all layers, and what is made of them at a refresh.

use super::activations::{Activations, Observation, batch};
use super::preconditioner::{Entry, State};
use crate::covariance::{Centring, FactorOptions, factor_scratch};
use crate::eigen::{check_finite_lower, self_adjoint_eigen, self_adjoint_eigen_scratch};
use crate::error::check_shape;
use crate::inverse::{damped_inverse, damped_inverse_scratch};
use crate::layer::Layer;
use crate::{Bias, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle, damping};
use core::mem::MaybeUninit;

/// What a refresh makes of a factor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Inverse,
    Eigenbasis,
}

/// One running factor. What is in use and what is prepared are two buffers, exchanged when a refresh has succeeded everywhere.
pub(super) struct Factor<T> {
    layer: usize,
    size: usize,
    running: Vec<T>,
    backup: Vec<T>,
    pub(super) used: Vec<T>,
    prepared: Vec<T>,
    /// Eigenvalues; empty for inverses.
    pub(super) values: Vec<T>,
    pub(super) prepared_values: Vec<T>,
}

impl<T: Element> Factor<T> {
    fn new(layer: usize, size: usize, kind: Kind) -> Self {
        let square = || vec![T::zero(); size * size];
        let line = || vec![T::zero(); if kind == Kind::Eigenbasis { size } else { 0 }];
        let (running, backup, used, prepared) = (square(), square(), square(), square());
        Factor { layer, size, running, backup, used, prepared, values: line(), prepared_values: line() }
    }

    /// What is in use: an inverse or eigenvectors.
    pub(super) fn used(&self) -> MatRef<'_, T> {
        square(&self.used, self.size)
    }

    pub(super) fn running(&self) -> MatRef<'_, T> {
        square(&self.running, self.size)
    }

    /// The mean of the eigenvalues, `tr A / n`, corrected by `c`.
    pub(super) fn mean(&self, c: T) -> T {
        c * damping::trace(self.running()) / T::from_f64(self.size as f64)
    }

    pub(super) fn prepare_inverse(&mut self, c: T, damping: T, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (n, running) = (self.size, &self.running);
        let out = MatMut::new(&mut self.prepared, [n, n])?;
        damped_inverse(out, square(running, n), c, damping, Triangle::Full, par, stack)
            .map_err(|error| error.in_layer(self.layer))
    }

    /// Eigenvalues below zero are rounding errors of a positive semidefinite matrix: they are set to zero.
    pub(super) fn prepare_eigenbasis(&mut self, c: T, stack: &mut MemStack) -> Result<(), Error> {
        let (n, running) = (self.size, &self.running);
        let out = MatMut::new(&mut self.prepared, [n, n])?;
        self_adjoint_eigen(&mut self.prepared_values, out, square(running, n), c, stack)
            .map_err(|error| error.in_layer(self.layer))?;
        self.prepared_values.iter_mut().for_each(|v| *v = v.max(T::zero()));
        Ok(())
    }
}

/// A square in a buffer that was made for it.
pub(super) fn square<T>(values: &[T], size: usize) -> MatRef<'_, T> {
    matrix(values, [size, size])
}

/// A matrix in a buffer that was made for it.
pub(super) fn matrix<T>(values: &[T], shape: [usize; 2]) -> MatRef<'_, T> {
    MatRef::new(values, shape).unwrap_or_else(|error| unreachable!("a buffer of the right size: {error}"))
}

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
    decay: f64,
    centring: Centring,
    kind: Kind,
    pub(super) inputs: Vec<Factor<T>>,
    /// Empty where no error factor is held.
    pub(super) errors: Vec<Factor<T>>,
    pub(super) extras: Vec<Extra<T>>,
    count: u64,
    backup_count: u64,
    ready: bool,
}

impl<T: Element> Factors<T> {
    pub(super) fn new(layers: &[Layer], decay: f64, centring: Centring, kind: Kind, with_errors: bool) -> Self {
        let each = |layers: &[Layer], size: fn(&Layer) -> usize| {
            layers.iter().enumerate().map(|(l, layer)| Factor::new(l, size(layer), kind)).collect()
        };
        let inputs = each(layers, Layer::factor_input);
        let errors = each(if with_errors { layers } else { &[] }, Layer::outputs);
        let (layers, extras) = (layers.to_vec(), Vec::new());
        Factors { layers, decay, centring, kind, inputs, errors, extras, count: 0, backup_count: 0, ready: false }
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

    /// The correction `c` for a refresh, whose factors `c A` and `c B` are finite.
    pub(super) fn finite_correction(&self) -> Result<T, Error> {
        let needed_for = "a refresh needs at least one mini-batch";
        let c = self.correction().ok_or(Error::Missing { what: "observations", needed_for })?;
        for (argument, factors) in [("input factor", &self.inputs), ("error factor", &self.errors)] {
            for factor in factors {
                check_finite_lower(argument, factor.running(), c).map_err(|error| error.in_layer(factor.layer))?;
            }
        }
        Ok(c)
    }

    fn options(&self, layer: &Layer, bias: Bias) -> FactorOptions {
        let (sharing, centring) = (layer.sharing(), self.centring);
        FactorOptions { sharing, bias, centring, triangle: Triangle::Lower, decay: self.decay, ..Default::default() }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Factor<T>> {
        self.inputs.iter_mut().chain(&mut self.errors)
    }

    /// Eigenbases of all factors, several at a time on `par`'s threads, each on one: a basis does not depend on their number.
    pub(super) fn prepare_eigenbases(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let c = self.finite_correction()?;
        let bytes = self.scratch_of_one(par).unaligned_bytes_required();
        let degree = par.degree();
        let (memory, _) = stack.make_uninit::<u8>(bytes * degree);
        decompose(&mut self.inputs, &mut self.errors, c, degree, memory)
    }

    /// Scratch of what a refresh makes of the largest factor.
    fn scratch_of_one(&self, par: Par) -> StackReq {
        self.inputs.iter().chain(&self.errors).fold(StackReq::empty(), |req, factor| {
            req.or(match self.kind {
                Kind::Inverse => damped_inverse_scratch::<T>(factor.size, par),
                Kind::Eigenbasis => self_adjoint_eigen_scratch::<T>(factor.size),
            })
        })
    }

    pub(super) fn layer(&self, layer: usize) -> &Layer {
        &self.layers[layer]
    }

    /// The decay as the factors use it.
    pub(super) fn decay(&self) -> T {
        T::from_f64(self.decay)
    }
}

/// Rows, cubed and summed, below which all decompositions run on the calling thread: about 2 ms.
const PARALLEL_CUBES: usize = 1 << 21;

/// Decomposes on `degree` threads, each with its share of the memory and of the cubes of the sizes.
fn decompose<T: Element>(
    inputs: &mut [Factor<T>],
    errors: &mut [Factor<T>],
    c: T,
    degree: usize,
    memory: &mut [MaybeUninit<u8>],
) -> Result<(), Error> {
    let (count, split) = (inputs.len() + errors.len(), inputs.len());
    let cubes = |factor: &Factor<T>| factor.size.saturating_pow(3);
    let total = inputs.iter().chain(&*errors).map(cubes).fold(0, usize::saturating_add);
    if degree == 1 || count < 2 || total < PARALLEL_CUBES {
        let mut factors = inputs.iter_mut().chain(errors);
        return factors.try_for_each(|factor| factor.prepare_eigenbasis(c, MemStack::new(memory)));
    }
    // The first factors, until they have their part of the work.
    let half = degree / 2;
    let mut seen = 0usize;
    let before = inputs.iter().chain(&*errors).take_while(|factor| {
        let middle = seen + cubes(factor) / 2;
        seen += cubes(factor);
        middle <= total / degree * half
    });
    let cut = before.count().clamp(1, count - 1);
    let ((first_in, last_in), (first_err, last_err)) =
        (inputs.split_at_mut(cut.min(split)), errors.split_at_mut(cut.saturating_sub(split)));
    let (first, last) = memory.split_at_mut(memory.len() / degree * half);
    let (a, b) = rayon::join(
        || decompose(first_in, first_err, c, half, first),
        || decompose(last_in, last_err, c, degree - half, last),
    );
    a.and(b)
}

impl<T: Element> State<T> for Factors<T> {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, (layer, observation)) in self.layers.iter().zip(observations).enumerate() {
            check_layer(layer, observation, !self.errors.is_empty()).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn observe(&mut self, observations: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.check(observations)?;
        for (l, observation) in observations.iter().enumerate() {
            let layer = self.layers[l];
            let t = layer.positions();
            let options = self.options(&layer, layer.bias());
            let out = MatMut::new(&mut self.inputs[l].running, [layer.factor_input(); 2])?;
            let x = observation.inputs.datapoints("inputs", t, layer.inputs())?;
            batch(&x).input_factor(out, &options, par, stack)?;
            if let (Some(e), false) = (observation.errors, self.errors.is_empty()) {
                let e = e.datapoints("errors", t, layer.outputs())?;
                let rows_per_datapoint = e.shape()[0] / x.shape()[0];
                let centring = Centring::Raw;
                let options = FactorOptions { rows_per_datapoint, centring, ..self.options(&layer, Bias::Without) };
                let out = MatMut::new(&mut self.errors[l].running, [layer.outputs(); 2])?;
                batch(&e).error_factor(out, &options, par, stack)?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq {
        self.layers.iter().zip(observations).fold(StackReq::empty(), |req, (layer, seen)| {
            let side = |x: Option<Activations<'_, T>>, d: usize, bias: Bias| {
                let view = x.and_then(|x| x.datapoints("", layer.positions(), d).ok());
                view.map_or(StackReq::empty(), |x| factor_scratch::<T>(x.shape(), &self.options(layer, bias), par))
            };
            let inputs = side(Some(seen.inputs), layer.inputs(), layer.bias());
            req.or(inputs).or(side(seen.errors, layer.outputs(), Bias::Without))
        })
    }

    fn backup(&mut self) {
        self.backup_count = self.count;
        self.each().for_each(|factor| factor.backup.copy_from_slice(&factor.running));
        self.extras.iter_mut().for_each(|extra| extra.backup.copy_from_slice(&extra.used));
    }

    fn restore(&mut self) {
        self.count = self.backup_count;
        self.each().for_each(|factor| factor.running.copy_from_slice(&factor.backup));
        self.extras.iter_mut().for_each(|extra| extra.used.copy_from_slice(&extra.backup));
    }

    fn prepare_scratch(&self, par: Par) -> StackReq {
        let one = self.scratch_of_one(par);
        match self.kind {
            Kind::Inverse => one,
            Kind::Eigenbasis => StackReq::new::<u8>(one.unaligned_bytes_required() * par.degree()),
        }
    }

    fn commit(&mut self) {
        self.ready = true;
        for factor in self.each() {
            core::mem::swap(&mut factor.used, &mut factor.prepared);
            core::mem::swap(&mut factor.values, &mut factor.prepared_values);
        }
        self.extras.iter_mut().for_each(|extra| core::mem::swap(&mut extra.used, &mut extra.prepared));
    }

    fn input_factor(&self, layer: usize) -> (MatRef<'_, T>, T) {
        (self.inputs[layer].running(), self.correction().unwrap_or(T::one()))
    }

    fn entries(&self) -> Vec<Entry<'_, T>> {
        let mut entries = Vec::new();
        for (side, factors) in [("input", &self.inputs), ("error", &self.errors)] {
            for (l, factor) in factors.iter().enumerate() {
                let n = factor.size;
                entries.push((format!("layer.{l}.{side}.running"), vec![n, n], &factor.running[..]));
                entries.push((format!("layer.{l}.{side}.used"), vec![n, n], &factor.used[..]));
                entries.push((format!("layer.{l}.{side}.values"), vec![factor.values.len()], &factor.values[..]));
            }
        }
        entries.extend(self.extras.iter().map(|e| (e.name.clone(), e.shape.clone(), &e.used[..])));
        entries
    }

    fn entries_mut(&mut self) -> Vec<&mut [T]> {
        let factors = self.inputs.iter_mut().chain(&mut self.errors);
        let factors = factors.flat_map(|f| [&mut f.running[..], &mut f.used[..], &mut f.values[..]]);
        factors.chain(self.extras.iter_mut().map(|e| &mut e.used[..])).collect()
    }

    fn counters(&self) -> [u64; 2] {
        [self.count, u64::from(self.ready)]
    }

    fn set_counters(&mut self, [count, ready]: [u64; 2]) {
        (self.count, self.ready) = (count, ready == 1);
    }
}

fn check_layer<T: Element>(layer: &Layer, seen: &Observation<'_, T>, with_errors: bool) -> Result<(), Error> {
    let t = layer.positions();
    let x = seen.inputs.datapoints("inputs", t, layer.inputs())?;
    seen.inputs.check_finite("inputs", &x)?;
    if !with_errors {
        return Ok(());
    }
    let needed_for = "the error factor needs the errors of sampled or given labels";
    let errors = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
    let e = errors.datapoints("errors", t, layer.outputs())?;
    let n = x.shape()[0];
    let labels = (e.shape()[0] / n).max(1);
    errors.check_count("errors", labels * n, &e)?;
    errors.check_finite("errors", &e)
}
