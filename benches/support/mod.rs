//! What the families share: the jobs of `examples/roofline`, and the FMA peak beside them.

#[path = "../../examples/roofline/data.rs"]
mod data;
#[path = "../../examples/roofline/jobs.rs"]
mod jobs;
#[path = "../../examples/roofline/natural.rs"]
mod natural;
#[path = "../../examples/roofline/ours.rs"]
mod ours;

use criterion::{BenchmarkId, Criterion, Throughput};
use foof_kernels::{Par, peak};
use jobs::Job;
use std::time::Duration;

/// Jobs of more operations than this are left to the roofline: criterion wants many samples.
const LONGEST: f64 = 2e10;

/// Benchmark families, one criterion file each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Second moments of activations and errors.
    Covariance,
    /// Preconditioning products.
    Product,
    /// Cholesky and what follows from it.
    Inverse,
    /// Eigendecompositions.
    Eigen,
    /// Natural gradients.
    Woodbury,
}

impl Family {
    fn of(job: Job) -> Family {
        match job {
            Job::Covariance { .. }
            | Job::CovarianceBf16 { .. }
            | Job::CovarianceReduce { .. }
            | Job::ConvCovariance { .. }
            | Job::Moments { .. } => Family::Covariance,
            Job::Product { .. } | Job::Foof { .. } | Job::FoofLowRank { .. } | Job::Kfac { .. } => Family::Product,
            Job::Eigen { .. } => Family::Eigen,
            Job::Woodbury { .. } | Job::ConvWoodbury { .. } => Family::Woodbury,
            Job::Inverse { .. } | Job::Batched { .. } | Job::Cholesky { .. } | Job::Solve { .. } => Family::Inverse,
        }
    }
}

/// Benchmarks every job of the family on all of rayon's threads (`RAYON_NUM_THREADS`), throughput in useful operations per
/// second; and the FMA peak, in the same unit, as a benchmark of its own: a regression is a fall in the fraction of that.
pub fn family(criterion: &mut Criterion, family: Family) {
    let par = Par::all();
    fma_peak(criterion, par);
    for job in Job::all().into_iter().filter(|job| Family::of(*job) == family && job.flops() <= LONGEST) {
        let mut group = criterion.benchmark_group(job.kernel());
        group.sample_size(20).throughput(Throughput::Elements(job.flops() as u64));
        let mut work = ours::work(job, par);
        group.bench_function(BenchmarkId::from_parameter(job.shape()), |bencher| bencher.iter(&mut work));
        group.finish();
    }
}

fn fma_peak(criterion: &mut Criterion, par: Par) {
    const OPERATIONS: u64 = 1_000_000_000;
    let mut group = criterion.benchmark_group("fma_peak");
    group.sample_size(10).throughput(Throughput::Elements(OPERATIONS));
    let name = format!("{} x{}", par.isa(), par.degree());
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        // The peak is itself a rate, the best of several runs: what it makes of `OPERATIONS` is the time of one iteration.
        bencher.iter_custom(|iterations| {
            let seconds = OPERATIONS as f64 / peak::fma::<f32>(par);
            Duration::from_secs_f64(seconds * iterations as f64)
        });
    });
    group.finish();
}
