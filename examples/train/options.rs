//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::settings::{MethodKind, Settings};
use crate::task::Task;

const EXAMPLES: &str = "\
Examples:
  cargo run --release --example train
      all four methods on the CURVES autoencoder
  cargo run --release --example train -- --data path/to/mnist
      the classifier, on MNIST's IDX files
  cargo run --release --example train -- --data path/to/mnist --network cnn
      the convolutional classifier, on the same
  cargo run --release --example train -- --method foof --damping 0.1 --learning-rate 0.03
      one method with settings of your own
  cargo run --release --example train -- --method kfac,foof --period 1 --observe 1
      factors inverted at every step: what would the best preconditioner bring?
  cargo run --release --example train -- --data path/to/mnist --method natural,natural-full,natural-block
      the exact natural gradient: labels sampled, all labels, and each layer by itself";

/// Trains a network with SGD+momentum, Adam, K-FAC and FOOF from one initialisation, and compares them.
///
/// Without --data: the autoencoder 784-1000-500-250-30-250-500-1000-784 on generated images of curves.
/// With --data: the classifier 784-1000-1000-1000-10 on handwritten digits, or with --network cnn three convolutions (3x3 taps, 32, 64 and
/// 128 channels, strides 1, 2 and 2) and a dense layer.
/// Prints a table, and writes it, the curves as JSON, and a plot of loss against steps and seconds.
#[derive(Parser, Clone, Debug)]
#[command(name = "train", verbatim_doc_comment, after_help = EXAMPLES)]
pub struct Options {
    /// Methods to run, separated by commas [default: sgd,adam,kfac,foof]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METHODS")]
    pub method: Vec<MethodKind>,

    /// What the network is made of
    #[arg(long, value_enum, default_value_t = NetworkKind::Dense)]
    pub network: NetworkKind,

    /// Folder with MNIST-format IDX files (train-* or t10k-*, .gz or not)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Images to train on [default: 10000 curves, or all digits]
    #[arg(long, value_parser = count, value_name = "N")]
    pub images: Option<usize>,

    /// Digits taken from the end and only tested on
    #[arg(long, default_value_t = 0, value_name = "N", requires = "data")]
    pub hold_out: usize,

    /// Passes over the images [default: 6 for curves, 5 for digits]
    #[arg(long, value_parser = count, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<usize>,

    /// Steps, instead of epochs
    #[arg(long, value_parser = count, value_name = "N")]
    pub steps: Option<usize>,

    /// Images in a mini-batch
    #[arg(long, value_parser = count, default_value_t = 100, value_name = "N")]
    pub batch: usize,

    /// Step size eta, for every method that is run; K-FAC's and FOOF's grows with the damping, as their updates
    /// shrink with it [default: each method's own]
    #[arg(long, value_parser = positive, allow_negative_numbers = true, value_name = "ETA")]
    pub learning_rate: Option<f64>,

    /// Momentum; Adam's beta_1 [default: each method's own]
    #[arg(long, value_parser = fraction, allow_negative_numbers = true, value_name = "MU")]
    pub momentum: Option<f64>,

    /// Damping lambda of K-FAC, FOOF and the natural gradient: small values trust the factors, large ones turn the methods towards SGD
    /// [default: each method's own]
    #[arg(long, value_parser = positive, allow_negative_numbers = true, value_name = "LAMBDA")]
    pub damping: Option<f64>,

    /// Steps between two refreshes of the inverse factors (the paper's T); the natural gradient's system is of each step's own
    /// mini-batch
    #[arg(long, value_parser = count, default_value_t = Settings::PERIOD, value_name = "T")]
    pub period: usize,

    /// Steps before each refresh that the factors observe (the paper's S), at most T
    #[arg(long, value_parser = count, value_name = "S", default_value_t = Settings::OBSERVE)]
    pub observe: usize,

    /// Decay m of the factors' moving average: 0 keeps the last mini-batch only
    #[arg(long, value_parser = fraction, default_value_t = Settings::FACTOR_DECAY, value_name = "M")]
    pub factor_decay: f64,

    /// Images that the natural gradient's Fisher matrix is made of at each step [default: as many as the batch has]
    #[arg(long, value_parser = count, value_name = "N")]
    pub fisher_batch: Option<usize>,

    /// Where they come from
    #[arg(long, value_enum, default_value = "step", value_name = "FROM")]
    pub fisher_from: FisherFrom,

    /// Seeds of the initial weights, the order of the images and the sampled labels, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "SEEDS")]
    pub seeds: Vec<u64>,

    /// Threads [default: all cores]
    #[arg(long, value_parser = count, value_name = "N")]
    pub threads: Option<usize>,

    /// Folder for the plot and the records
    #[arg(long, default_value = "target/train", value_name = "DIR")]
    pub out: PathBuf,

    /// Compare the defaults with their neighbours: five learning rates by four momenta or dampings for each method;
    /// takes twenty times as long
    #[arg(long, conflicts_with_all = ["learning_rate", "momentum", "damping"])]
    pub grid: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkKind {
    /// Dense layers
    Dense,
    /// Convolutions, then a dense layer; needs --data
    Cnn,
}

/// Which images the natural gradient's Fisher matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FisherFrom {
    /// The first ones of the step's own mini-batch
    Step,
    /// A second mini-batch, of any size, in an order of its own: no image's gradient is then divided by itself
    Independent,
}

impl Options {
    /// 3 GB of pixels.
    const MOST_IMAGES: usize = 1_000_000;
    const MOST_THREADS: usize = 1024;

    /// What options taken together must satisfy.
    pub fn check(&self) -> Result<(), String> {
        if self.observe > self.period {
            let Self { observe, period, .. } = self;
            return Err(format!("--observe {observe} is more than --period {period}: S counts steps out of T"));
        }
        if self.network == NetworkKind::Cnn && self.data.is_none() {
            return Err("--network cnn needs --data: the generated images of curves have no classes".into());
        }
        let own = self.fisher_from == FisherFrom::Step;
        if let Some(images) = self.fisher_batch.filter(|&images| own && images > self.batch) {
            let Self { batch, .. } = self;
            return Err(format!(
                "--fisher-batch {images} is more than --batch {batch}: take --fisher-from independent"
            ));
        }
        if !own && !self.methods().iter().any(|method| method.is_natural()) {
            return Err("--fisher-from independent is for natural gradients: add --method natural".into());
        }
        if self.method.contains(&MethodKind::NaturalFull) && self.data.is_none() {
            return Err("--method natural-full needs --data: the generated images of curves have no classes".into());
        }
        if let Some(images) = self.images.filter(|&images| images > Self::MOST_IMAGES) {
            return Err(format!("--images {images} is more than {}", Self::MOST_IMAGES));
        }
        if let Some(threads) = self.threads.filter(|&threads| threads > Self::MOST_THREADS) {
            return Err(format!("--threads {threads} is more than {}", Self::MOST_THREADS));
        }
        Ok(())
    }

    pub fn task(&self) -> Task {
        match (&self.data, self.network) {
            (None, _) => Task::Autoencoder,
            (Some(_), NetworkKind::Dense) => Task::Classifier,
            (Some(_), NetworkKind::Cnn) => Task::ConvolutionalClassifier,
        }
    }

    /// The methods to run.
    pub fn methods(&self) -> &[MethodKind] {
        match self.method.as_slice() {
            [] => &MethodKind::DEFAULT,
            methods => methods,
        }
    }

    /// Steps of training on `images` images.
    pub fn steps(&self, images: usize) -> usize {
        let epochs = self.epochs.unwrap_or(match self.task() {
            Task::Autoencoder => 6,
            Task::Classifier | Task::ConvolutionalClassifier => 5,
        });
        self.steps.unwrap_or(epochs.saturating_mul(images / self.batch))
    }

    /// A method's settings: its best ones, changed by what the command line says.
    pub fn settings(&self, method: MethodKind) -> Settings {
        let best = Settings::best(self.task(), method);
        Settings {
            learning_rate: self.learning_rate.unwrap_or(best.learning_rate),
            momentum: self.momentum.unwrap_or(best.momentum),
            damping: self.damping.unwrap_or(best.damping),
            ..self.scheduled(best)
        }
    }

    /// `settings` with the command line's schedule and factor decay.
    pub fn scheduled(&self, settings: Settings) -> Settings {
        Settings { period: self.period, observe: self.observe, factor_decay: self.factor_decay, ..settings }
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a whole number".into()),
    }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "not a number".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    let good = value > 0.0 && value.is_finite();
    good.then_some(value).ok_or_else(|| "must be positive and finite".into())
}

fn fraction(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    (0.0..1.0).contains(&value).then_some(value).ok_or_else(|| "must be in [0, 1)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let arguments = std::iter::once("train").chain(arguments.iter().copied());
        let options = Options::try_parse_from(arguments).map_err(|error| error.to_string())?;
        options.check().map(|()| options)
    }

    #[test]
    fn without_arguments_all_methods_run_with_their_best_settings() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.methods(), MethodKind::DEFAULT);
        for &method in MethodKind::value_variants() {
            assert_eq!(options.settings(method), Settings::best(Task::Autoencoder, method));
        }
        assert_eq!(options.steps(1050), 60);
    }

    #[test]
    fn convolutions_are_for_digits() {
        let options = parse(&["--network", "cnn", "--data", "d"]).unwrap();
        assert_eq!(options.task(), Task::ConvolutionalClassifier);
        assert_eq!(options.methods(), MethodKind::DEFAULT);
    }

    #[test]
    fn the_command_line_overrides() {
        let options = parse(&["--method", "foof,sgd", "--damping", "0.5", "--data", "d", "--epochs", "2"]).unwrap();
        assert_eq!(options.methods(), [MethodKind::Foof, MethodKind::Sgd]);
        assert_eq!(options.settings(MethodKind::Foof).damping, 0.5);
        assert_eq!((options.task(), options.steps(1000)), (Task::Classifier, 20));
    }

    #[test]
    fn a_second_mini_batch_may_have_any_size() {
        let options =
            parse(&["--method", "natural", "--fisher-from", "independent", "--fisher-batch", "1000"]).unwrap();
        assert_eq!((options.fisher_from, options.fisher_batch), (FisherFrom::Independent, Some(1000)));
    }

    #[test]
    fn nonsense_is_refused_with_the_name_of_the_option() {
        let cases: [&[&str]; 16] = [
            &["--damping", "0"],
            &["--damping", "nan"],
            &["--learning-rate", "-1"],
            &["--factor-decay", "1"],
            &["--momentum", "1.5"],
            &["--batch", "0"],
            &["--period", "x"],
            &["--observe", "101"],
            &["--threads", "0"],
            &["--threads", "100000"],
            &["--images", "1000000000000000000"],
            &["--method", "lbfgs"],
            &["--network", "cnn"],
            &["--fisher-batch", "101"],
            &["--fisher-from", "independent", "--method", "kfac"],
            &["--method", "natural-full"],
        ];
        for arguments in cases {
            let message = parse(arguments).unwrap_err();
            assert!(message.contains(arguments[0]), "{arguments:?}: {message}");
        }
        assert!(parse(&["--steps", "3", "--epochs", "2"]).is_err());
        assert!(parse(&["--grid", "--damping", "1"]).is_err());
    }
}
