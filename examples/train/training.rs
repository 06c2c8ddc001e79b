//! Training one network with one method, and what is recorded on the way.

use std::time::Instant;

use foof::Par;
use foof::optim::FisherBlocks;

use crate::Result;
use crate::architecture::Architecture;
use crate::data::{Batches, Dataset};
use crate::foof_methods::{foof, kfac, natural};
use crate::methods::{Adam, Method, Sgd};
use crate::network::{Errors, Network};
use crate::options::FisherFrom;
use crate::products::Workspace;
use crate::progress::Bar;
use crate::random::Purpose;
use crate::sampling::Labels;
use crate::settings::{MethodKind, Settings};
use crate::task::{Score, Task};

/// Points of a curve, besides the one before training.
const POINTS: usize = 40;

/// Images on which the curve's losses are measured: the first ones of the training set, always the same.
const PROBE: usize = 1000;

/// A loss this many times the initial one will not come back.
const DIVERGED: f64 = 1e3;

/// What all methods are given.
pub struct Problem {
    pub task: Task,
    pub architecture: Architecture,
    pub train: Dataset,
    pub held_out: Option<Dataset>,
    pub batch: usize,
    /// Images that the natural gradient's Fisher matrix is made of, and where they come from.
    pub fisher_batch: usize,
    pub fisher_from: FisherFrom,
    pub steps: usize,
    pub par: Par,
}

/// One measurement on the way.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub step: usize,
    /// Time spent in this method's steps and in its observations before training; measuring is not counted.
    pub seconds: f64,
    /// Mean loss of the probe's images.
    pub loss: f64,
}

/// What a method has reached.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Finished {
        /// Mean loss over the whole training set.
        loss: f64,
        accuracy: f64,
        /// On the images held out, if there are any.
        held_out_accuracy: Option<f64>,
    },
    Diverged {
        step: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Run {
    pub method: MethodKind,
    pub settings: Settings,
    pub seed: u64,
    pub curve: Vec<Point>,
    pub end: End,
    /// Time before the first step: observations, and the first refresh.
    pub start_seconds: f64,
    /// Mean time of a step.
    pub step_seconds: f64,
}

impl Run {
    /// The final loss; infinite if there is none.
    pub fn loss(&self) -> f64 {
        match self.end {
            End::Finished { loss, .. } => loss,
            End::Diverged { .. } => f64::INFINITY,
        }
    }
}

impl Problem {
    /// Trains a new network, initialised and fed in the same way for every method.
    pub fn run(&self, method: MethodKind, settings: Settings, seed: u64, bar: &mut Bar) -> Result<Run> {
        let mut trainer = Trainer::new(self, method, seed);
        let mut rule: Box<dyn Method> = match method {
            MethodKind::Sgd => Box::new(Sgd::new(&self.architecture, &settings)),
            MethodKind::Adam => Box::new(Adam::new(&self.architecture, &settings)),
            MethodKind::Kfac => kfac(self, &settings, seed)?,
            MethodKind::Foof => foof(self, &settings)?,
            MethodKind::Natural => natural(self, &settings, seed, FisherBlocks::Whole, Labels::Sampled)?,
            MethodKind::NaturalFull => natural(self, &settings, seed, FisherBlocks::Whole, Labels::All)?,
            MethodKind::NaturalBlock => natural(self, &settings, seed, FisherBlocks::Diagonal, Labels::Sampled)?,
        };

        let probe = PROBE.min(self.train.len());
        let initial = trainer.evaluate(&self.train, probe)?.loss / probe as f64;
        bar.update(0, initial);
        let mut curve = vec![Point { step: 0, seconds: 0.0, loss: initial }];
        let start_seconds = trainer.start(rule.as_mut())?;
        if rule.initial_observations() > 0 {
            curve.push(Point { step: 0, seconds: start_seconds, loss: initial });
        }
        let (mut seconds, mut diverged) = (0.0, None);
        for step in 1..=self.steps {
            let now = Instant::now();
            let loss = trainer.step(rule.as_mut())?;
            seconds += now.elapsed().as_secs_f64();
            if loss.is_nan() || loss >= DIVERGED * initial {
                diverged = Some(step);
                break;
            }
            bar.step();
            if is_point(step, self.steps) {
                let loss = trainer.evaluate(&self.train, probe)?.loss / probe as f64;
                bar.update(step, loss);
                curve.push(Point { step, seconds: start_seconds + seconds, loss });
            }
        }
        let end = match diverged {
            Some(step) => End::Diverged { step },
            None => trainer.end()?,
        };
        let step_seconds = seconds / diverged.unwrap_or(self.steps).max(1) as f64;
        Ok(Run { method, settings, seed, curve, end, start_seconds, step_seconds })
    }
}

/// Whether the loss is measured after `step`: [`POINTS`] times, evenly, and after the last.
fn is_point(step: usize, steps: usize) -> bool {
    step * POINTS / steps != (step - 1) * POINTS / steps
}

/// A network in training; all memory is taken before the first step.
struct Trainer<'a> {
    problem: &'a Problem,
    network: Network,
    errors: Errors,
    workspace: Workspace,
    batches: Batches,
    /// The network with a mini-batch of the Fisher matrix's own, if it has one.
    fisher: Option<(Network, Batches)>,
    seed: u64,
}

impl<'a> Trainer<'a> {
    fn new(problem: &'a Problem, method: MethodKind, seed: u64) -> Self {
        let Problem { architecture, batch, fisher_batch, par, .. } = problem;
        let images = problem.train.len();
        let second = method.is_natural() && problem.fisher_from == FisherFrom::Independent;
        let fisher = second.then(|| {
            let batches = Batches::new(images, *fisher_batch, seed, Purpose::FisherOrder);
            (Network::new(architecture, *fisher_batch, seed), batches)
        });
        Self {
            problem,
            network: Network::new(architecture, *batch, seed),
            errors: Errors::new(architecture, *batch),
            workspace: Workspace::new(*par),
            batches: Batches::new(images, *batch, seed, Purpose::Order),
            fisher,
            seed,
        }
    }

    /// The observations before training, of the mini-batches that training begins with; returns their time.
    fn start(&mut self, method: &mut dyn Method) -> Result<f64> {
        let now = Instant::now();
        let Problem { train, batch, .. } = self.problem;
        let mut batches = Batches::new(train.len(), *batch, self.seed, Purpose::Order);
        for _ in 0..method.initial_observations() {
            let images = batches.next().iter().map(|&number| train.image(number));
            self.network.forward(images, &mut self.workspace)?;
            method.observe(&self.network, &mut self.workspace)?;
        }
        method.start()?;
        Ok(now.elapsed().as_secs_f64())
    }

    /// One step; returns the mean loss of its mini-batch before the step.
    fn step(&mut self, method: &mut dyn Method) -> Result<f64> {
        let Problem { task, train, .. } = self.problem;
        let numbers = self.batches.next();
        let images = numbers.iter().map(|&number| train.image(number));
        self.network.forward(images, &mut self.workspace)?;
        let score = task.score(&self.network, train, numbers.iter().copied(), &mut self.errors);
        self.network.backward(&mut self.errors, &mut self.workspace)?;
        if let Some((fisher, batches)) = &mut self.fisher {
            fisher.copy_weights(&self.network);
            fisher.forward(batches.next().iter().map(|&number| train.image(number)), &mut self.workspace)?;
        }
        let fisher = self.fisher.as_ref().map(|(fisher, _)| fisher);
        method.step(&mut self.network, &self.errors, fisher, &mut self.workspace)?;
        Ok(score.loss / numbers.len() as f64)
    }

    /// The score of the first `count` images of a data set.
    fn evaluate(&mut self, data: &Dataset, count: usize) -> Result<Score> {
        let mut total = Score::default();
        for first in (0..count).step_by(self.problem.batch) {
            let numbers = first..count.min(first + self.problem.batch);
            let images = numbers.clone().map(|number| data.image(number));
            self.network.forward(images, &mut self.workspace)?;
            let score = self.problem.task.score(&self.network, data, numbers, &mut self.errors);
            total.loss += score.loss;
            total.correct += score.correct;
        }
        Ok(total)
    }

    fn end(&mut self) -> Result<End> {
        let Problem { train, held_out, .. } = self.problem;
        let score = self.evaluate(train, train.len())?;
        let loss = score.loss / train.len() as f64;
        let accuracy = score.correct as f64 / train.len() as f64;
        let held_out_accuracy = match held_out {
            Some(data) => Some(self.evaluate(data, data.len())?.correct as f64 / data.len() as f64),
            None => None,
        };
        Ok(End::Finished { loss, accuracy, held_out_accuracy })
    }
}
