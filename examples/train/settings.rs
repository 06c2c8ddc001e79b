//! The methods, the settings that each takes, their defaults, and a grid around them.

use clap::ValueEnum;

use crate::task::Task;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum MethodKind {
    /// Gradient descent with momentum
    Sgd,
    /// Adam
    Adam,
    /// K-FAC: both Kronecker factors, labels sampled from the model
    Kfac,
    /// FOOF: the input factor alone
    Foof,
    /// The exact natural gradient, labels sampled from the model
    Natural,
    /// The exact natural gradient of all labels (the full Fisher); needs classes
    NaturalFull,
    /// The exact natural gradient of each layer by itself, labels sampled
    NaturalBlock,
}

impl MethodKind {
    pub fn name(self) -> &'static str {
        match self {
            MethodKind::Sgd => "SGD+momentum",
            MethodKind::Adam => "Adam",
            MethodKind::Kfac => "K-FAC",
            MethodKind::Foof => "FOOF",
            MethodKind::Natural => "natural",
            MethodKind::NaturalFull => "natural-full",
            MethodKind::NaturalBlock => "natural-block",
        }
    }

    /// What runs unless the user says otherwise.
    pub const DEFAULT: [MethodKind; 4] = [MethodKind::Sgd, MethodKind::Adam, MethodKind::Kfac, MethodKind::Foof];

    /// Whether it is a form of the exact natural gradient.
    pub fn is_natural(self) -> bool {
        matches!(self, MethodKind::Natural | MethodKind::NaturalFull | MethodKind::NaturalBlock)
    }

    /// Whether the method is damped.
    pub fn is_damped(self) -> bool {
        self.has_factors() || self.is_natural()
    }

    /// Whether the method has factors: damping, a schedule and a factor decay.
    pub fn has_factors(self) -> bool {
        matches!(self, MethodKind::Kfac | MethodKind::Foof)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub learning_rate: f64,
    /// Adam: the decay of its first moment.
    pub momentum: f64,
    pub damping: f64,
    /// Steps between refreshes, `T`.
    pub period: usize,
    /// Steps before a refresh that are observed, `S`.
    pub observe: usize,
    /// `m`.
    pub factor_decay: f64,
}

impl Settings {
    pub const PERIOD: usize = 100;
    pub const OBSERVE: usize = 10;
    pub const FACTOR_DECAY: f64 = 0.95;

    /// Each method's defaults on each data set: the best of its grid, or with convolutions of a few trials (SGD and Adam: none), which
    /// `docs/training.md` records. The natural gradient's were searched for the classifier only.
    pub fn best(task: Task, method: MethodKind) -> Self {
        use MethodKind::{Adam, Foof, Kfac, Natural, NaturalBlock, NaturalFull, Sgd};
        let (learning_rate, momentum, damping) = match (task, method) {
            (Task::Autoencoder, Sgd) => (3e-3, 0.9, 0.0),
            (Task::Autoencoder, Adam) => (1e-3, 0.9, 0.0),
            (Task::Autoencoder, Kfac) => (5e-3, 0.9, 3e-1),
            (Task::Autoencoder, Foof) => (5e-3, 0.9, 3e-1),
            (Task::Classifier, Sgd) => (1e-2, 0.97, 0.0),
            (Task::Classifier, Adam) => (3e-4, 0.5, 0.0),
            (Task::Classifier, Kfac) => (1e-2, 0.9, 1e-1),
            (Task::Classifier, Foof) => (5e-2, 0.9, 3e-1),
            (Task::ConvolutionalClassifier, Sgd) => (2e-2, 0.9, 0.0),
            (Task::ConvolutionalClassifier, Adam) => (2e-3, 0.9, 0.0),
            (Task::ConvolutionalClassifier, Kfac) => (1e-2, 0.9, 1e-1),
            (Task::ConvolutionalClassifier, Foof) => (1e-1, 0.9, 3e-1),
            (Task::Autoencoder, Natural | NaturalFull | NaturalBlock) => (1e-2, 0.9, 1e1),
            (Task::Classifier, Natural | NaturalBlock) => (3e1, 0.9, 1e3),
            (Task::Classifier, NaturalFull) => (3.0, 0.9, 1e2),
            (_, Natural | NaturalFull | NaturalBlock) => (3e-1, 0.9, 1e1),
        };
        Self {
            learning_rate,
            momentum,
            damping,
            period: Self::PERIOD,
            observe: Self::OBSERVE,
            factor_decay: Self::FACTOR_DECAY,
        }
    }

    /// Every method's grid has the same size: five learning rates by four momenta, or by four dampings (at momentum 0.9). The natural gradient's
    /// learning rates are SGD's times the damping: with a large one it is SGD.
    pub fn grid(task: Task, method: MethodKind) -> Vec<Self> {
        use MethodKind::{Adam, Foof, Kfac, Natural, NaturalBlock, NaturalFull, Sgd};
        let best = Self::best(task, method);
        let learning_rates: [f64; 5] = match (task, method) {
            (Task::Autoencoder, Sgd | Natural | NaturalFull | NaturalBlock) | (_, Adam) => {
                [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
            }
            (_, Sgd | Natural | NaturalFull | NaturalBlock) => [3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
            (Task::ConvolutionalClassifier, Foof) => [1e-2, 2e-2, 5e-2, 1e-1, 2e-1],
            (_, Kfac | Foof) => [2e-3, 5e-3, 1e-2, 2e-2, 5e-2],
        };
        let seconds: [Self; 4] = match method {
            Sgd | Adam => [0.5, 0.8, 0.9, 0.97].map(|momentum| Self { momentum, ..best }),
            Kfac | Foof => [3e-2, 1e-1, 3e-1, 1.0].map(|damping| Self { damping, ..best }),
            Natural | NaturalFull | NaturalBlock => [1.0, 1e1, 1e2, 1e3].map(|damping| Self { damping, ..best }),
        };
        let pair = |settings: Self| {
            let unit = if method.is_natural() { settings.damping } else { 1.0 };
            learning_rates.map(|rate| Self { learning_rate: rate * unit, ..settings })
        };
        seconds.into_iter().flat_map(pair).collect()
    }
}
