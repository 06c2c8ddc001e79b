//! K-FAC, with heuristic or exact damping.

use super::blocks::{Kind, Side};
use super::factors::{Factors, Setting};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::Preconditioner;
use crate::covariance::Centring;
use crate::kronecker::{Denominators, Factor, Gradient, eigen_step, eigen_step_scratch, kfac_step, step_scratch};
use crate::layer::Layer;
use crate::{Blend, Element, Error, MatMut, MemStack, Par, StackReq};

/// How K-FAC is damped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KfacDamping {
    /// `(B + lambda_B I) ⊗ (A + lambda_A I)`, split by [`heuristic`](crate::damping::heuristic).
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
    options: KfacOptions,
}

impl<T: Element> Preconditioner<T> for KfacFactors<T> {
    type Options = KfacOptions;
    type State = Factors<T>;
    const NAME: &'static str = "kfac";

    fn new(layers: &[Layer], options: &KfacOptions, par: Par) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        let kind = match options.damping_rule {
            KfacDamping::Heuristic => Kind::Inverse,
            KfacDamping::Exact => Kind::Eigenbasis,
        };
        let setting = Setting { decay: options.factor_decay, centring: Centring::Raw, kind, with_errors: true };
        Ok(KfacFactors { factors: Factors::new(layers, setting, par)?, options: *options })
    }

    fn settings(options: &KfacOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    fn rules(&self) -> Vec<(&'static str, String)> {
        let KfacOptions { damping, damping_rule, factor_decay, .. } = self.options;
        vec![
            ("damping", format!("{damping:?}")),
            ("damping_rule", format!("{damping_rule:?}")),
            ("factor_decay", format!("{factor_decay:?}")),
        ]
    }

    fn state(&self) -> &Factors<T> {
        &self.factors
    }

    fn state_mut(&mut self) -> &mut Factors<T> {
        &mut self.factors
    }

    fn damping(&self) -> f64 {
        self.options.damping
    }

    fn set_damping(&mut self, damping: f64) {
        self.options.damping = damping;
    }

    fn prepare(&mut self, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let c = self.factors.needed_correction()?;
        let factors = &mut self.factors.blocks;
        if self.options.damping_rule == KfacDamping::Exact {
            factors.check_finite(c)?;
            return factors.prepare_eigenbases(c, par, stack);
        }
        let damping = T::from_f64(self.options.damping);
        for block in 0..factors.count() {
            factors.set_dampings(block, factors.heuristic(block, c, damping)?);
        }
        factors.prepare_inverses(Side::Error, c, par, stack)
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
        let [a, b] = [Side::Input, Side::Error].map(|side| factors.used(side, block));
        match self.options.damping_rule {
            KfacDamping::Heuristic => {
                kfac_step(out, blend, gradient, Factor::Inverse(a), Factor::Inverse(b), par, stack)
            }
            KfacDamping::Exact => {
                let [values_a, values_b] = [Side::Input, Side::Error].map(|side| factors.values(side, block));
                let denominators = Denominators::Products(values_b, values_a);
                let damping = T::from_f64(self.options.damping);
                eigen_step(out, blend, gradient, [a, b], denominators, damping, par, stack)
            }
        }
    }

    fn precondition_scratch(&self, block: usize, rows: Option<usize>, par: Par) -> StackReq {
        let shape = self.factors.block_shape(block);
        match self.options.damping_rule {
            KfacDamping::Heuristic => step_scratch::<T>(shape, rows, par),
            KfacDamping::Exact => eigen_step_scratch::<T>(shape, rows, par),
        }
    }
}
