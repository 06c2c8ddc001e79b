//! FOOF: gradient descent on neurons, preconditioned with the input factor alone.

use super::blocks::{Kind, Side};
use super::factors::{Extra, Factors, Setting};
use super::options::{Schedule, StepOptions, check_factors};
use super::preconditioner::Preconditioner;
use crate::covariance::Centring;
use crate::dense::{blend_into, dot, temporary, temporary_scratch};
use crate::kronecker::{Factor, Gradient, foof_step, step_scratch};
use crate::layer::Layer;
use crate::product::{product, product_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq};

/// How FOOF's input factor is damped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FoofDamping {
    /// By `lambda`.
    #[default]
    Fixed,
    /// By `lambda_A` of K-FAC's heuristic, for comparisons (the paper's D.9). Holds an error factor and needs errors.
    KfacLambdaA,
}

/// How the update is scaled for comparisons with K-FAC (the paper's D.9). All but `Own` need [`FoofDamping::KfacLambdaA`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FoofScale {
    /// Not at all.
    #[default]
    Own,
    /// By `lambda_A / lambda = 1 / lambda_B` (Fig. 3).
    LambdaA,
    /// To the norm of K-FAC's update, in each layer, or group of a convolution (Fig. 4C).
    KfacNorm,
}

/// Options of [`Foof`](super::Foof).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FoofOptions {
    /// `lambda > 0`
    pub damping: f64,
    /// How it is used.
    pub damping_rule: FoofDamping,
    /// How updates are scaled.
    pub scale: FoofScale,
    /// `m`, in `[0, 1)`.
    pub factor_decay: f64,
    /// Whether inputs are centred (natural neural networks); those of convolutions cannot be.
    pub centring: Centring,
    /// When factors are observed and refreshed.
    pub schedule: Schedule,
    /// How weights follow.
    pub step: StepOptions,
}

impl Default for FoofOptions {
    /// `lambda = 1`, `m = 0.95`, T = 100, S = 10.
    fn default() -> Self {
        FoofOptions {
            damping: 1.0,
            damping_rule: FoofDamping::Fixed,
            scale: FoofScale::Own,
            factor_decay: 0.95,
            centring: Centring::Raw,
            schedule: Schedule::default(),
            step: StepOptions::default(),
        }
    }
}

/// FOOF's state: input factors, their damped inverses, and the factor of each layer's update.
pub struct FoofFactors<T> {
    factors: Factors<T>,
    options: FoofOptions,
}

impl<T: Element> Preconditioner<T> for FoofFactors<T> {
    type Options = FoofOptions;
    type State = Factors<T>;
    const NAME: &'static str = "foof";

    fn new(layers: &[Layer], options: &FoofOptions, par: Par) -> Result<Self, Error> {
        check_factors::<T>(options.damping, options.factor_decay)?;
        if options.scale != FoofScale::Own && options.damping_rule == FoofDamping::Fixed {
            return Err(Error::Missing { what: "FoofDamping::KfacLambdaA", needed_for: "scaling updates to K-FAC's" });
        }
        let with_errors = options.damping_rule == FoofDamping::KfacLambdaA;
        let FoofOptions { factor_decay: decay, centring, .. } = *options;
        let factors = Factors::new(layers, Setting { decay, centring, kind: Kind::Inverse, with_errors }, par)?;
        let gains = Extra::new("gains".into(), &[factors.blocks.count()], T::one());
        Ok(FoofFactors { factors: factors.with_extras(vec![gains]), options: *options })
    }

    fn settings(options: &FoofOptions) -> (Schedule, StepOptions) {
        (options.schedule, options.step)
    }

    fn rules(&self) -> Vec<(&'static str, String)> {
        let FoofOptions { damping, damping_rule, scale, factor_decay, centring, .. } = self.options;
        vec![
            ("damping", format!("{damping:?}")),
            ("damping_rule", format!("{damping_rule:?}")),
            ("scale", format!("{scale:?}")),
            ("factor_decay", format!("{factor_decay:?}")),
            ("centring", format!("{centring:?}")),
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
        let damping = T::from_f64(self.options.damping);
        let Factors { blocks: factors, extras, .. } = &mut self.factors;
        for block in 0..factors.count() {
            let dampings = match self.options.damping_rule {
                FoofDamping::Fixed => (damping, damping),
                FoofDamping::KfacLambdaA => factors.heuristic(block, c, damping)?,
            };
            factors.set_dampings(block, dampings);
            if self.options.scale == FoofScale::LambdaA {
                extras[0].prepared[block] = dampings.0 / damping;
            }
        }
        let last = if self.options.scale == FoofScale::KfacNorm { Side::Error } else { Side::Input };
        factors.prepare_inverses(last, c, par, stack)
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
        let input = Factor::Inverse(self.factors.blocks.used(Side::Input, block));
        if self.options.scale != FoofScale::KfacNorm {
            let blend = Blend { alpha: blend.alpha * self.factors.extras[0].used[block], ..blend };
            return foof_step(out, blend, gradient, input, par, stack);
        }
        let shape @ [o, i] = out.shape();
        let (mut own, stack) = temporary::<T>(stack, o * i);
        let (mut kfac, stack) = temporary::<T>(stack, o * i);
        let (mut own, mut kfac) = (MatMut::new(&mut own, shape)?, MatMut::new(&mut kfac, shape)?);
        let one = Blend::set(T::one());
        foof_step(own.rb_mut(), one, gradient, input, par, stack)?;
        product(kfac.rb_mut(), one, self.factors.blocks.used(Side::Error, block), own.as_ref(), par, stack)?;
        let norm = |m: MatRef<'_, T>| dot(m, m).sqrt();
        let (from, to) = (norm(own.as_ref()), norm(kfac.as_ref()));
        let ratio = if from == T::zero() { T::zero() } else { to / from };
        blend_into(out, Blend { alpha: blend.alpha * ratio, ..blend }, own.as_ref(), par);
        Ok(())
    }

    fn precondition_scratch(&self, block: usize, rows: Option<usize>, par: Par) -> StackReq {
        let shape @ [o, i] = self.factors.block_shape(block);
        let step = step_scratch::<T>(shape, rows, par);
        if self.options.scale != FoofScale::KfacNorm {
            return step;
        }
        let two = temporary_scratch::<T>(o * i).and(temporary_scratch::<T>(o * i));
        two.and(step.or(product_scratch::<T>(o, i, o, par)))
    }
}
