//! Every kernel against the machine's own limit and against its peers, in one run.
//!
//! ```text
//! cargo run --release --example roofline -- --json roofline.json --threads 2
//! ```
//!
//! The limit is the rate of a loop of fused multiply-adds on registers alone, same instruction set and threads, measured again
//! before each row; absolute times drift with the machine, fractions of the peak and ratios to peers much less.

#[cfg(feature = "cuda")]
mod cuda;
mod data;
mod faer_peer;
mod jobs;
mod natural;
mod ours;
mod report;
mod timing;

use clap::{Parser, ValueEnum};
use foof_kernels::{Par, peak};
use indicatif::{ProgressBar, ProgressStyle};
use jobs::Job;
use report::{Peers, Report, Row};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures the FMA peak of this machine, then every kernel as a fraction of it and against faer on the same work.
///
/// Rows are named by kernel and shape. "of peak" is useful operations per second (those a symmetric algorithm needs: n² k for
/// X^T X, n³ for an inverse) over the peak; for a convolution's covariance "GFLOP/s" counts what unfolding would take,
/// and "of peak" the operations really done. "speedup" is the best peer's time over ours. Rows `..._scaling` compare all
/// threads with one. Times are the best of several repeats, ours and the peers' taken in turns. Nothing else should run.
///
/// `--device cuda` (built with `--features cuda`) measures the first CUDA device instead: its FMA, tensor and copy rates, and every kernel by
/// events on its stream. Rows `.._tf32`, `.._bf16` round their factors so; `.._fma`, `.._block` force a rung. Peers: cuda/peers.py.
///
/// The environment variable FOOF_ISA (avx512, avx2, portable) forces the instruction set.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    roofline --json roofline.json                     everything, on all threads\n  \
    roofline --threads 1 --filter covariance          one family, on one thread\n  \
    roofline --filter n=1024 --repeats 50             one size, measured longer\n  \
    python peers.py --threads 2 --json peers.json && roofline --threads 2 --peers peers.json\n                                                    \
    against PyTorch and OpenBLAS too")]
struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// On a CUDA device, shapes and loops that take no time: only to see that everything runs
    #[arg(long)]
    tiny: bool,

    /// Write the results here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Threads of every row [default: all of the machine's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Only rows whose "kernel shape" contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Samples a row takes its best from; slow rows stop at fewer
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,

    /// The JSON of peers.py, run on this machine just before: its rows join as peers
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Device {
    /// This machine's cores
    Cpu,
    /// The first CUDA device
    Cuda,
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::report::Report;
    use std::error::Error;

    pub fn measure(
        _filter: &str,
        _repeats: usize,
        _tiny: bool,
        _keep: impl FnMut(&mut Report) -> Result<(), Box<dyn Error>>,
    ) -> Result<Report, Box<dyn Error>> {
        Err("built without CUDA: cargo run --release --features cuda --example roofline".into())
    }
}

/// A peak that falls below this fraction of its best is reported: the rows measured then are too low.
const STEADY: f64 = 0.9;

/// One row to be: a job against faer, or against itself on one thread.
#[derive(Clone, Copy)]
struct Plan {
    job: Job,
    scaling: bool,
}

impl Plan {
    fn kernel(self) -> String {
        format!("{}{}", self.job.kernel(), if self.scaling { "_scaling" } else { "" })
    }

    /// Every row on `threads` threads that `filter` lets through.
    fn all(threads: usize, filter: &str) -> Vec<Plan> {
        let jobs = Job::all();
        let scaled = jobs.iter().filter(|job| threads > 1 && scales(**job));
        let plans = jobs.iter().map(|&job| Plan { job, scaling: false });
        plans
            .chain(scaled.map(|&job| Plan { job, scaling: true }))
            .filter(|plan| format!("{} {}", plan.kernel(), plan.job.shape()).contains(filter))
            .collect()
    }

    fn measure(self, par: Par, repeats: usize) -> Row {
        let mut ways = vec![ours::work(self.job, par)];
        let peer = if self.scaling { "one_thread" } else { "faer" };
        if self.scaling {
            ways.push(ours::work(self.job, Par::seq()));
        } else {
            ways.extend(faer_peer::work(self.job, par));
        }
        let seconds = timing::race(&mut ways, repeats);
        let mut row = Row::new(self.kernel(), self.job, par, seconds[0]);
        seconds[1..].iter().for_each(|&peer_seconds| row.meet(peer, peer_seconds));
        row
    }
}

/// Jobs large enough that another thread should pay in full.
fn scales(job: Job) -> bool {
    match job {
        Job::Covariance { n, triangle, .. } => n >= 1000 && triangle == foof_kernels::Triangle::Lower,
        Job::ConvCovariance { images, triangle } => {
            images.s == 1 && images.groups == 1 && images.k > 1 && triangle == foof_kernels::Triangle::Lower
        }
        Job::Inverse { n, triangle } => n >= 1024 && triangle == foof_kernels::Triangle::Lower,
        Job::Foof { o, .. } | Job::Kfac { o, .. } => o >= 512,
        _ => false,
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let peers = args.peers.as_deref().map(Peers::read).transpose()?;
    if let Some(path) = &args.json {
        // A run takes minutes: learn now whether its result can be written.
        std::fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    let filter = args.filter.as_deref().unwrap_or("");
    let mut report = match args.device {
        Device::Cpu => measure_cpu(args, filter, peers.as_ref())?,
        Device::Cuda => cuda::measure(filter, usize::from(args.repeats), args.tiny, |report| {
            if let Some(peers) = &peers {
                report.merge(peers);
            }
            args.json.as_deref().map_or(Ok(()), |path| report.write(path))
        })?,
    };
    if report.rows.is_empty() {
        return Err("no row matches --filter: rows are named like `covariance N=1000 d=1000`".into());
    }
    if let Some(peers) = &peers {
        report.merge(peers);
    }
    print!("{}", report.table());
    args.json.as_deref().map_or(Ok(()), |path| report.write(path))?;
    if report.failed > 0 { Err(format!("{} rows could not be measured", report.failed).into()) } else { Ok(()) }
}

fn measure_cpu(args: &Args, filter: &str, peers: Option<&Peers>) -> Result<Report, Box<dyn Error>> {
    let threads = match args.threads {
        Some(n) => usize::from(n),
        None => std::thread::available_parallelism()?.get(),
    };
    if let Some(peers) = peers.filter(|p| p.threads() != threads) {
        return Err(format!("the peers ran on {} threads: run this with --threads the same", peers.threads()).into());
    }
    let plans = Plan::all(threads, filter);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    Ok(pool.install(|| measure(&plans, threads, usize::from(args.repeats))))
}

fn measure(plans: &[Plan], threads: usize, repeats: usize) -> Report {
    let par = Par::threads(threads);
    let mut report = Report {
        peak_gflops: 0.0,
        threads,
        isa: par.isa().name().to_owned(),
        limits: None,
        rows: Vec::new(),
        failed: 0,
    };
    let style = ProgressStyle::with_template("[{pos}/{len}] {bar:30} {elapsed} {msg}").expect("a valid template");
    let bar = ProgressBar::new(plans.len() as u64).with_style(style);
    let (mut peak, mut lowest) = (0.0f64, f64::INFINITY);
    for plan in plans {
        bar.set_message(format!("{} {}", plan.kernel(), plan.job.shape()));
        let now = peak::fma::<f32>(par) / 1e9;
        (peak, lowest) = (peak.max(now), lowest.min(now));
        report.rows.push(plan.measure(par, repeats));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if lowest < STEADY * peak {
        eprintln!(
            "roofline: the FMA peak fell from {peak:.1} to {lowest:.1} GFLOP/s during the run: is the machine busy?"
        );
    }
    report.set_peak(peak);
    report
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roofline: {error}");
            ExitCode::FAILURE
        }
    }
}
