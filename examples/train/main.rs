//! Trains a network with SGD+momentum, Adam, K-FAC, FOOF and the exact natural gradient from one initialisation, and compares them per step and
//! per second: `cargo run --release --example train -- --help`.
//!
//! Read [`foof_methods`] first: it is what a program of one's own needs. The order of the rest:
//!
//! | module | what it does |
//! |---|---|
//! | [`options`], [`settings`] | the command line; the methods, their default settings and grids |
//! | [`curves`], [`idx`], [`data`] | images: generated, read, batched |
//! | [`task`], [`architecture`], [`network`], [`activation`], [`products`] | the network, its loss, its products on foof's engine |
//! | [`methods`], [`foof_methods`], [`sampling`] | the methods, and the labels that the Fisher matrix is made of |
//! | [`training`], [`grid`] | the runs |
//! | [`progress`], [`report`], [`plot`] | what a user sees of them |

mod activation;
mod architecture;
mod curves;
mod data;
mod foof_methods;
mod grid;
mod idx;
mod methods;
mod network;
mod options;
mod plot;
mod products;
mod progress;
mod random;
mod report;
mod sampling;
mod settings;
mod task;
mod training;

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use foof::Par;

use crate::options::Options;
use crate::progress::Progress;
use crate::task::Task;
use crate::training::Problem;

/// The errors of an example are for its user to read, so they need no type of their own.
pub type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The generated images are the same in every run.
const CURVES_SEED: u64 = 2006;

/// Generated images, unless the user says how many.
const CURVES: usize = 10_000;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(message) = options.check() {
        Options::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result {
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    std::fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let problem = problem(options)?;
    eprintln!("{}", report::headline(&problem));

    let progress = Progress::new();
    let (name, runs, text) = if options.grid {
        let runs = grid::run(&problem, options, &progress)?;
        let text = grid::tables(&runs);
        (format!("{}-grid", problem.train.name), runs, text)
    } else {
        let mut runs = Vec::new();
        for (method, &seed) in options.methods().iter().flat_map(|m| options.seeds.iter().map(move |s| (*m, s))) {
            let label = match options.seeds.len() {
                1 => method.name().to_owned(),
                _ => format!("{} #{seed}", method.name()),
            };
            let mut bar = progress.begin(label, problem.steps);
            let run = problem.run(method, options.settings(method), seed, &mut bar)?;
            bar.finish(&report::summary(&run));
            runs.push(run);
        }
        let text = report::table(&problem, &runs);
        (problem.train.name.to_owned(), runs, text)
    };

    println!("\n{text}");
    let out = |extension: &str| options.out.join(format!("{}.{extension}", name.to_lowercase()));
    let mut written = vec![out("md"), out("json")];
    std::fs::write(&written[0], format!("{}\n\n{text}", report::headline(&problem)))?;
    std::fs::write(&written[1], format!("{}\n", report::json(&problem, &runs)))?;
    if !options.grid {
        written.push(out("png"));
        let title = format!("{} {}: training loss", problem.train.name, problem.task.title());
        plot::draw(&written[2], &title, &runs)?;
    }
    for path in written {
        println!("{}", path.display());
    }
    Ok(())
}

/// The images and the network that the options ask for.
fn problem(options: &Options) -> Result<Problem> {
    let task = options.task();
    let mut train = match &options.data {
        Some(folder) => idx::read_folder(folder)?,
        None => curves::curves(options.images.unwrap_or(CURVES), CURVES_SEED),
    };
    let held_out = (options.hold_out > 0).then(|| train.split_off(options.hold_out));
    train.truncate(options.images.unwrap_or(train.len()));
    let (images, batch) = (train.len(), options.batch);
    if batch > images {
        return Err(format!("--batch {batch} is more than the {images} images to train on").into());
    }
    let fisher_batch = options.fisher_batch.unwrap_or(batch);
    if fisher_batch > images {
        return Err(format!("--fisher-batch {fisher_batch} is more than the {images} images to train on").into());
    }
    let classes = match task {
        Task::Autoencoder => train.width,
        Task::Classifier | Task::ConvolutionalClassifier => idx::CLASSES,
    };
    Ok(Problem {
        task,
        architecture: task.architecture(train.width, classes)?,
        held_out,
        batch,
        steps: options.steps(images),
        par: Par::all(),
        fisher_batch,
        fisher_from: options.fisher_from,
        train,
    })
}
