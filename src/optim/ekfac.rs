//! EK-FAC: K-FAC's eigenbasis with second moments measured in it.

use super::delegate::delegate_to_factors;
use super::factors::{Factors, Kind, matrix};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::{Entry, Observation, Preconditioner};
use crate::covariance::Centring;
use crate::dense::{flatten_rows, temporary, temporary_scratch};
use crate::kronecker::{Denominators, Gradient, eigen_step, eigen_step_scratch};
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use foof_kernels::covariance::{squared_product, squared_product_scratch};
use foof_kernels::product::{product, product_scratch};

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
    damping: T,
    moments: Vec<Vec<T>>,
    backup: Vec<Vec<T>>,
    prepared: Vec<Vec<T>>,
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
        let layer = self.factors.layers[l];
        let Some(e) = seen.errors else { return Ok(()) };
        let (t, shape @ [o, i]) = (layer.positions(), layer.weight_shape());
        let (rows, error_rows) = (seen.inputs.rows(), e.rows());
        let (n, labels) = (rows / t, error_rows / rows);
        let set = Blend::set(T::one());
        let (mut x, stack) = temporary::<T>(stack, rows * i);
        let (mut xq, stack) = temporary::<T>(stack, rows * i);
        let (mut eq, stack) = temporary::<T>(stack, error_rows * o);
        flatten_rows(MatMut::new(&mut x, [rows, i])?, seen.inputs);
        let q_a = self.factors.inputs[l].used();
        let q_b = self.factors.errors[l].used();
        product(MatMut::new(&mut xq, [rows, i])?, set, matrix(&x, [rows, i]), q_a, par, stack);
        product(MatMut::new(&mut eq, [error_rows, o])?, set, e, q_b, par, stack);
        let xq = matrix(&xq, [rows, i]);
        let decay = self.factors.decay();
        let alpha = (T::one() - decay) * T::from_f64(1.0 / n as f64);
        let blend = |first: bool| Blend { alpha, beta: if first { decay } else { T::one() } };
        let mut moments = MatMut::new(&mut self.moments[l], shape)?;
        if t == 1 {
            for label in 0..labels {
                let e = MatRef::strided(&eq, label * o, [n, o], [(labels * o) as isize, 1])?;
                squared_product(moments.rb_mut(), blend(label == 0), e, xq, par, stack);
            }
            return Ok(());
        }
        let eq = matrix(&eq, [error_rows, o]);
        let (mut g, stack) = temporary::<T>(stack, o * i);
        let mut g = MatMut::new(&mut g, shape)?;
        for row in 0..n * labels {
            let at = row / labels * t;
            let e = eq.row_range(row * t..(row + 1) * t);
            product(g.rb_mut(), set, e.transpose(), xq.row_range(at..at + t), par, stack);
            let blend = blend(row == 0);
            for (a, b) in (0..o).flat_map(|a| (0..i).map(move |b| (a, b))) {
                let value = g.as_ref().at([a, b]);
                let old = if blend.beta == T::zero() { T::zero() } else { blend.beta * moments.as_ref().at([a, b]) };
                moments.set([a, b], old + blend.alpha * value * value);
            }
        }
        Ok(())
    }

    fn layer_scratch(&self, l: usize, seen: &Observation<'_, T>, par: Par) -> StackReq {
        let layer = self.factors.layers[l];
        let (t, [o, i]) = (layer.positions(), layer.weight_shape());
        let (n, m) = (seen.inputs.rows(), seen.errors.map_or(0, |e| e.rows()));
        let temporaries = [n * i, n * i, m * o, o * i].map(temporary_scratch::<T>);
        let products = [
            product_scratch::<T>(n, i, i, par),
            product_scratch::<T>(m, o, o, par),
            product_scratch::<T>(o, i, t, par),
            squared_product_scratch::<T>(o, i, n / t, par),
        ];
        StackReq::all_of(&temporaries).and(StackReq::any_of(&products))
    }
}

fn copy_all<T: Copy>(to: &mut [Vec<T>], from: &[Vec<T>]) {
    to.iter_mut().zip(from).for_each(|(to, from)| to.copy_from_slice(from));
}

impl<T: Element> Preconditioner<T> for EkfacFactors<T> {
    type Options = EkfacOptions;
    const NAME: &'static str = "ekfac";

    fn new(layers: &[Layer], options: &EkfacOptions) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        let factors = Factors::new(layers, options.factor_decay, Centring::Raw, Kind::Eigenbasis, true);
        let buffers = || layers.iter().map(|layer| vec![T::zero(); layer.weights()]).collect();
        let damping = T::from_f64(options.damping);
        Ok(EkfacFactors { factors, damping, moments: buffers(), backup: buffers(), prepared: buffers() })
    }

    fn settings(options: &EkfacOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    delegate_to_factors!();

    fn observe(&mut self, seen: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.factors.observe(seen, par, stack)?;
        if self.factors.ready {
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

    fn backup(&mut self) {
        self.factors.backup();
        copy_all(&mut self.backup, &self.moments);
    }

    fn restore(&mut self) {
        self.factors.restore();
        copy_all(&mut self.moments, &self.backup);
    }

    fn prepare(&mut self, _par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.factors.prepare_eigenbases(stack)?;
        for (l, moments) in self.prepared.iter_mut().enumerate() {
            let (a, b) = (&self.factors.inputs[l].prepared_values, &self.factors.errors[l].prepared_values);
            for (row, &b) in moments.chunks_exact_mut(a.len()).zip(b) {
                row.iter_mut().zip(a).for_each(|(moment, &a)| *moment = b * a);
            }
        }
        Ok(())
    }

    fn prepare_scratch(&self, par: Par) -> StackReq {
        self.factors.prepare_scratch(par)
    }

    fn commit(&mut self) {
        self.factors.commit();
        core::mem::swap(&mut self.moments, &mut self.prepared);
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
        let moments = matrix(&self.moments[layer], self.factors.layers[layer].weight_shape());
        eigen_step(out, blend, gradient, vectors, Denominators::Moments(moments), self.damping, par, stack)
    }

    fn precondition_scratch(&self, layer: usize, rows: Option<usize>, par: Par) -> StackReq {
        eigen_step_scratch::<T>(self.factors.layers[layer].weight_shape(), rows, par)
    }

    fn entries(&self) -> Vec<Entry<'_, T>> {
        let mut entries = self.factors.entries();
        for (l, moments) in self.moments.iter().enumerate() {
            let shape = self.factors.layers[l].weight_shape();
            entries.push((format!("layer.{l}.moments"), shape.to_vec(), moments));
        }
        entries
    }

    fn entries_mut(&mut self) -> Vec<&mut [T]> {
        let mut entries = self.factors.entries_mut();
        entries.extend(self.moments.iter_mut().map(|moments| &mut moments[..]));
        entries
    }
}
