//! Options that the optimisers share.

use crate::Error;
use crate::error::check_parameter;

/// Whether a step uses the factors from before or after its own observation and refresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Step, then observe and refresh.
    #[default]
    StepFirst,
    /// Observe and refresh, then step: with `m = 0` and `T = 1` exact FOOF on the current mini-batch.
    RefreshFirst,
}

/// When factors are observed and refreshed: at step `t`, counted from 0, observe if `t mod T >= T - S`, refresh if `(t+1) mod T = 0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// `T >= 1`.
    pub period: usize,
    /// `S`, from 1 to `T`.
    pub observe: usize,
    /// Mini-batches to observe before training; the caller passes them to `observe`, then calls `refresh`.
    pub initial: usize,
    /// What comes first.
    pub order: Order,
}

impl Default for Schedule {
    /// `T = 100`, `S = 10`, 50 initial mini-batches, step first.
    fn default() -> Self {
        Schedule { period: 100, observe: 10, initial: 50, order: Order::StepFirst }
    }
}

impl Schedule {
    /// Whether step `t` observes.
    pub fn observes(&self, t: u64) -> bool {
        t % self.period as u64 >= (self.period - self.observe) as u64
    }

    /// Whether step `t` refreshes.
    pub fn refreshes(&self, t: u64) -> bool {
        (t + 1).is_multiple_of(self.period as u64)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_parameter("period", self.period as f64, self.period > 0, "a positive number")?;
        let valid = (1..=self.period).contains(&self.observe);
        check_parameter("observe", self.observe as f64, valid, "from 1 to the period")
    }
}

/// How preconditioned gradients `D` change the weights: `V <- mu V + D`, `W <- (1 - eta w) W - eta V`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepOptions {
    /// `eta`
    pub learning_rate: f64,
    /// `mu`, in `[0, 1)`.
    pub momentum: f64,
    /// The first step that uses momentum; before it `V = D`.
    pub momentum_start: u64,
    /// `w`, decoupled from the gradient, not negative.
    pub weight_decay: f64,
    /// Polyak averaging of the weights, `Wbar <- xi Wbar + (1 - xi) W` with `xi = min(1 - 1/k, cap)` at the k-th step: the cap, in `[0, 1)`.
    pub polyak: Option<f64>,
}

impl Default for StepOptions {
    /// `eta = 0.01`, nothing else.
    fn default() -> Self {
        StepOptions { learning_rate: 0.01, momentum: 0.0, momentum_start: 0, weight_decay: 0.0, polyak: None }
    }
}

impl StepOptions {
    /// The paper's cap of Polyak averaging (appendix D.6).
    pub const POLYAK: f64 = 0.99;

    pub(crate) fn check(&self) -> Result<(), Error> {
        let (eta, w) = (self.learning_rate, self.weight_decay);
        check_parameter("learning_rate", eta, eta >= 0.0 && eta.is_finite(), "a finite number, not negative")?;
        check_parameter("momentum", self.momentum, unit(self.momentum), "a number in [0, 1)")?;
        check_parameter("weight_decay", w, w >= 0.0 && w.is_finite(), "a finite number, not negative")?;
        self.polyak.map_or(Ok(()), |cap| check_parameter("polyak", cap, unit(cap), "a number in [0, 1)"))
    }
}

/// Whether a decay is in `[0, 1)`.
fn unit(x: f64) -> bool {
    (0.0..1.0).contains(&x)
}

/// Damping of an optimiser and decay of its factors.
pub(crate) fn check_factors<T: crate::Element>(damping: f64, decay: f64) -> Result<(), Error> {
    let rounded = T::from_f64(damping);
    let positive = rounded > T::zero() && rounded.is_finite();
    check_parameter("damping", damping, positive, "a positive finite number")?;
    let below_one = unit(decay) && T::from_f64(decay) < T::one();
    check_parameter("factor_decay", decay, below_one, "a number in [0, 1)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_of_the_paper() {
        let schedule = Schedule { period: 5, observe: 2, ..Schedule::default() };
        let observed: Vec<u64> = (0..10).filter(|&t| schedule.observes(t)).collect();
        let refreshed: Vec<u64> = (0..10).filter(|&t| schedule.refreshes(t)).collect();
        assert_eq!((observed, refreshed), (vec![3, 4, 8, 9], vec![4, 9]));
    }
}
