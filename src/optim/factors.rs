//! Running factors of all layers, and what is made of them at a refresh.

use super::preconditioner::{Entry, Observation};
use crate::covariance::{Centring, FactorOptions, error_factor, factor_scratch, input_factor};
use crate::dense::check_finite_matrix;
use crate::eigen::{self_adjoint_eigen, self_adjoint_eigen_scratch};
use crate::error::check_shape;
use crate::inverse::{damped_inverse, damped_inverse_scratch};
use crate::layer::Layer;
use crate::{Bias, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle, damping};

/// What a refresh makes of a factor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Inverse,
    Eigenbasis,
}

/// One running factor. What is in use and what is prepared are two buffers, exchanged when a refresh has succeeded everywhere.
pub(super) struct Factor<T> {
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
    fn new(size: usize, kind: Kind) -> Self {
        let square = || vec![T::zero(); size * size];
        let line = || vec![T::zero(); if kind == Kind::Eigenbasis { size } else { 0 }];
        let (running, backup, used, prepared) = (square(), square(), square(), square());
        Factor { size, running, backup, used, prepared, values: line(), prepared_values: line() }
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
    }

    /// Eigenvalues below zero are rounding errors of a positive semidefinite matrix: they are set to zero.
    pub(super) fn prepare_eigenbasis(&mut self, c: T, stack: &mut MemStack) -> Result<(), Error> {
        let (n, running) = (self.size, &self.running);
        let out = MatMut::new(&mut self.prepared, [n, n])?;
        self_adjoint_eigen(&mut self.prepared_values, out, square(running, n), c, stack)?;
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

/// The factors of all layers.
pub(super) struct Factors<T> {
    pub(super) layers: Vec<Layer>,
    decay: f64,
    centring: Centring,
    kind: Kind,
    pub(super) inputs: Vec<Factor<T>>,
    /// Empty where no error factor is held.
    pub(super) errors: Vec<Factor<T>>,
    count: u64,
    backup_count: u64,
    pub(super) ready: bool,
}

impl<T: Element> Factors<T> {
    pub(super) fn new(layers: &[Layer], decay: f64, centring: Centring, kind: Kind, with_errors: bool) -> Self {
        let inputs = layers.iter().map(|layer| Factor::new(layer.factor_input(), kind)).collect();
        let held = if with_errors { layers } else { &[] };
        let errors = held.iter().map(|layer| Factor::new(layer.outputs(), kind)).collect();
        let layers = layers.to_vec();
        Factors { layers, decay, centring, kind, inputs, errors, count: 0, backup_count: 0, ready: false }
    }

    /// `c = 1 / (1 - m^k)`.
    pub(super) fn correction(&self) -> Result<T, Error> {
        if self.count == 0 {
            return Err(Error::Missing { what: "observations", needed_for: "a refresh needs at least one mini-batch" });
        }
        // Powers beyond i32 have long vanished.
        let power = self.decay.powi(self.count.min(i32::MAX as u64) as i32);
        Ok(T::from_f64(1.0 / (1.0 - power)))
    }

    pub(super) fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, (layer, observation)) in self.layers.iter().zip(observations).enumerate() {
            check_layer(layer, observation, !self.errors.is_empty()).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn options(&self, layer: &Layer, bias: Bias) -> FactorOptions {
        let (sharing, centring) = (layer.sharing(), self.centring);
        FactorOptions { sharing, bias, centring, triangle: Triangle::Lower, decay: self.decay, ..Default::default() }
    }

    pub(super) fn observe(
        &mut self,
        observations: &[Observation<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        self.check(observations)?;
        for (l, observation) in observations.iter().enumerate() {
            let layer = self.layers[l];
            let t = layer.positions();
            let options = self.options(&layer, layer.bias());
            let out = MatMut::new(&mut self.inputs[l].running, [layer.factor_input(); 2])?;
            input_factor(out, observation.inputs.positions(t), &options, par, stack)?;
            if let (Some(e), false) = (observation.errors, self.errors.is_empty()) {
                let rows_per_datapoint = e.rows() / observation.inputs.rows();
                let centring = Centring::Raw;
                let options = FactorOptions { rows_per_datapoint, centring, ..self.options(&layer, Bias::Without) };
                let out = MatMut::new(&mut self.errors[l].running, [layer.outputs(); 2])?;
                error_factor(out, e.positions(t), &options, par, stack)?;
            }
        }
        self.count += 1;
        Ok(())
    }

    pub(super) fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq {
        let side = |x: MatRef<'_, T>, layer: &Layer, bias: Bias| {
            let shape = [x.rows() / layer.positions(), layer.positions(), x.cols()];
            factor_scratch::<T>(shape, &self.options(layer, bias), par)
        };
        self.layers.iter().zip(observations).fold(StackReq::empty(), |req, (layer, observation)| {
            let errors = observation.errors.map_or(StackReq::empty(), |e| side(e, layer, Bias::Without));
            req.or(side(observation.inputs, layer, layer.bias())).or(errors)
        })
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Factor<T>> {
        self.inputs.iter_mut().chain(&mut self.errors)
    }

    pub(super) fn backup(&mut self) {
        self.backup_count = self.count;
        self.each().for_each(|factor| factor.backup.copy_from_slice(&factor.running));
    }

    pub(super) fn restore(&mut self) {
        self.count = self.backup_count;
        self.each().for_each(|factor| factor.running.copy_from_slice(&factor.backup));
    }

    pub(super) fn prepare_scratch(&self, par: Par) -> StackReq {
        let kind = self.kind;
        self.inputs.iter().chain(&self.errors).fold(StackReq::empty(), |req, factor| {
            req.or(match kind {
                Kind::Inverse => damped_inverse_scratch::<T>(factor.size, par),
                Kind::Eigenbasis => self_adjoint_eigen_scratch::<T>(factor.size),
            })
        })
    }

    /// Eigenbases of all factors.
    pub(super) fn prepare_eigenbases(&mut self, stack: &mut MemStack) -> Result<(), Error> {
        let c = self.correction()?;
        let layers = self.layers.len();
        for (index, factor) in self.each().enumerate() {
            factor.prepare_eigenbasis(c, stack).map_err(|error| error.in_layer(index % layers))?;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) {
        self.ready = true;
        for factor in self.each() {
            core::mem::swap(&mut factor.used, &mut factor.prepared);
            core::mem::swap(&mut factor.values, &mut factor.prepared_values);
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry<'_, T>> {
        let mut entries = Vec::new();
        for (side, factors) in [("input", &self.inputs), ("error", &self.errors)] {
            for (l, factor) in factors.iter().enumerate() {
                let n = factor.size;
                entries.push((format!("layer.{l}.{side}.running"), vec![n, n], &factor.running[..]));
                entries.push((format!("layer.{l}.{side}.used"), vec![n, n], &factor.used[..]));
                entries.push((format!("layer.{l}.{side}.values"), vec![factor.values.len()], &factor.values[..]));
            }
        }
        entries
    }

    pub(super) fn entries_mut(&mut self) -> Vec<&mut [T]> {
        self.each().flat_map(|f| [&mut f.running[..], &mut f.used[..], &mut f.values[..]]).collect()
    }

    pub(super) fn counters(&self) -> [u64; 2] {
        [self.count, u64::from(self.ready)]
    }

    pub(super) fn set_counters(&mut self, [count, ready]: [u64; 2]) {
        (self.count, self.ready) = (count, ready == 1);
    }

    /// The decay as the factors use it.
    pub(super) fn decay(&self) -> T {
        T::from_f64(self.decay)
    }
}

fn check_layer<T: Element>(layer: &Layer, seen: &Observation<'_, T>, with_errors: bool) -> Result<(), Error> {
    let (x, t) = (seen.inputs, layer.positions());
    let whole = x.rows() / t * t;
    check_shape("inputs", &[whole, layer.inputs()], &x.shape())?;
    if whole == 0 {
        return Err(Error::EmptyBatch { argument: "inputs", shape: x.shape().to_vec() });
    }
    check_finite_matrix("inputs", x)?;
    if !with_errors {
        return Ok(());
    }
    let needed_for = "the error factor needs the errors of sampled or given labels";
    let e = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
    let labels = (e.rows() / x.rows()).max(1);
    check_shape("errors", &[labels * x.rows(), layer.outputs()], &e.shape())?;
    check_finite_matrix("errors", e)
}
