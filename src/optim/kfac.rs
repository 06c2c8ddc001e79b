//! K-FAC, with heuristic or exact damping.

use super::delegate::{delegate_observing, delegate_to_factors};
use super::factors::{Factors, Kind};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::{Entry, Observation, Preconditioner};
use crate::covariance::Centring;
use crate::kronecker::{Denominators, Factor, Gradient, eigen_step, eigen_step_scratch, kfac_step, step_scratch};
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, damping};

/// How K-FAC is damped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KfacDamping {
    /// `(B + lambda_B I) ⊗ (A + lambda_A I)`, split by [`damping::heuristic`].
    #[default]
    Heuristic,
    /// `B ⊗ A + lambda I`, in the eigenbasis.
    Exact,
}

/// Options of [`Kfac`](super::Kfac).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KfacOptions {
    /// `lambda > 0`
    pub damping: f64,
    /// How it is used.
    pub damping_rule: KfacDamping,
    /// `m`, in `[0, 1)`.
    pub factor_decay: f64,
    /// When factors are observed and refreshed.
    pub schedule: Schedule,
    /// How weights follow.
    pub step: StepOptions,
}

impl Default for KfacOptions {
    /// `lambda = 0.1`, heuristic, `m = 0.95`, T = 100, S = 10.
    fn default() -> Self {
        KfacOptions {
            damping: 0.1,
            damping_rule: KfacDamping::Heuristic,
            factor_decay: 0.95,
            schedule: Schedule::default(),
            step: StepOptions::default(),
        }
    }
}

/// K-FAC's state: both factors of each layer, and their damped inverses or eigenbases.
pub struct KfacFactors<T> {
    factors: Factors<T>,
    damping: T,
    rule: KfacDamping,
}

impl<T: Element> Preconditioner<T> for KfacFactors<T> {
    type Options = KfacOptions;
    const NAME: &'static str = "kfac";

    fn new(layers: &[Layer], options: &KfacOptions) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        let kind = match options.damping_rule {
            KfacDamping::Heuristic => Kind::Inverse,
            KfacDamping::Exact => Kind::Eigenbasis,
        };
        let factors = Factors::new(layers, options.factor_decay, Centring::Raw, kind, true);
        Ok(KfacFactors { factors, damping: T::from_f64(options.damping), rule: options.damping_rule })
    }

    fn settings(options: &KfacOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    delegate_to_factors!();
    delegate_observing!();

    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        if self.rule == KfacDamping::Exact {
            return self.factors.prepare_eigenbases(stack);
        }
        let c = self.factors.correction()?;
        for l in 0..self.factors.layers.len() {
            let (input, error) = (&mut self.factors.inputs[l], &mut self.factors.errors[l]);
            damping::heuristic(input.mean(c), error.mean(c), self.damping)
                .and_then(|(lambda_a, lambda_b)| {
                    input.prepare_inverse(c, lambda_a, par, stack)?;
                    error.prepare_inverse(c, lambda_b, par, stack)
                })
                .map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn prepare_scratch(&self, par: Par) -> StackReq {
        self.factors.prepare_scratch(par)
    }

    fn commit(&mut self) {
        self.factors.commit();
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
        let (a, b) = (&self.factors.inputs[layer], &self.factors.errors[layer]);
        match self.rule {
            KfacDamping::Heuristic => {
                kfac_step(out, blend, gradient, Factor::Inverse(a.used()), Factor::Inverse(b.used()), par, stack)
            }
            KfacDamping::Exact => {
                let denominators = Denominators::Products(&b.values, &a.values);
                eigen_step(out, blend, gradient, [a.used(), b.used()], denominators, self.damping, par, stack)
            }
        }
    }

    fn precondition_scratch(&self, layer: usize, rows: Option<usize>, par: Par) -> StackReq {
        let shape = self.factors.layers[layer].weight_shape();
        match self.rule {
            KfacDamping::Heuristic => step_scratch::<T>(shape, rows, par),
            KfacDamping::Exact => eigen_step_scratch::<T>(shape, rows, par),
        }
    }

    fn entries(&self) -> Vec<Entry<'_, T>> {
        self.factors.entries()
    }

    fn entries_mut(&mut self) -> Vec<&mut [T]> {
        self.factors.entries_mut()
    }
}
