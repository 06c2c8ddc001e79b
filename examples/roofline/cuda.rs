//! The first CUDA device: its limits, and every kernel against them. Times are those of events on the stream around one call, the best of several, as the
//! peers' are.

use super::data::{DAMPING, covariance_matrices, uniform};
use super::jobs::{Images, Job};
use super::report::{Limits, Report, Row};
use foof::covariance::FactorOptions;
use foof::cuda::convolution::{FactorPlan, conv_input_factor, conv_input_factor_scratch};
use foof::cuda::covariance::{factor_scratch, input_factor};
use foof::cuda::inverse::{batched_damped_inverse, batched_damped_inverse_scratch};
use foof::cuda::{Buffer, Device, Precision, Scratch, Stream};
use foof::inverse::Dampings;
use foof_cuda::covariance::{self as kernel, Rung as CovarianceRung, Spec};
use foof_cuda::inverse::{Rung as InverseRung, damped_inverse_by};
use foof_cuda::peak::{self, Effort, Unit};
use foof_cuda::tile::Math;
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Par, Triangle};
use std::error::Error;

/// A call that enqueues its work, any number of times.
type Work = Box<dyn FnMut() -> Result<(), foof::Error>>;

/// A way to do a job that is not the one that the library takes by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The library's own.
    Default,
    /// Factors rounded to TF32.
    Tf32,
    /// Factors rounded to bf16.
    Bf16,
    /// Covariances by multiply-adds, without tensor cores.
    Fma,
    /// Inverses with a block for each matrix.
    Block,
}

impl Way {
    fn suffix(self) -> &'static str {
        match self {
            Way::Default => "",
            Way::Tf32 => "_tf32",
            Way::Bf16 => "_bf16",
            Way::Fma => "_fma",
            Way::Block => "_block",
        }
    }

    fn precision(self) -> Precision {
        match self {
            Way::Tf32 => Precision::Tf32,
            Way::Bf16 => Precision::Bf16,
            Way::Default | Way::Fma | Way::Block => Precision::Full,
        }
    }

    /// Those that there are for a job.
    fn all(job: Job) -> &'static [Way] {
        match job {
            Job::Covariance { .. } => &[Way::Default, Way::Fma, Way::Tf32, Way::Bf16],
            Job::ConvCovariance { .. } => &[Way::Default, Way::Tf32, Way::Bf16],
            Job::Batched { .. } => &[Way::Default, Way::Block],
            _ => &[],
        }
    }
}

/// The jobs that there are kernels for, in the order of the table.
fn jobs(tiny: bool) -> Vec<Job> {
    if tiny {
        let images = Images { n: 2, c: 3, h: 5, k: 3, p: 1, s: 1, groups: 1 };
        let triangles = [Triangle::Full, Triangle::Lower];
        let mut jobs: Vec<Job> = triangles.map(|triangle| Job::Covariance { n: 5, d: 9, triangle }).into();
        jobs.push(Job::ConvCovariance { images, triangle: Triangle::Lower });
        jobs.push(Job::Batched { batch: 3, n: 5 });
        return jobs;
    }
    let mut jobs: Vec<Job> = Job::all().into_iter().filter(|&job| !Way::all(job).is_empty()).collect();
    jobs.push(Job::Batched { batch: 16, n: 256 });
    jobs
}

/// Bytes of the inputs and of the output that is written, each counted once.
fn bytes(job: Job) -> f64 {
    let elements = match job {
        Job::Covariance { n, d, triangle } => n * d + triangle_of(d, triangle),
        Job::ConvCovariance { images, triangle } => {
            let conv = images.conv();
            let input: usize = conv.input_shape(images.n).iter().product();
            input + conv.groups() * triangle_of(conv.features(), triangle)
        }
        Job::Batched { batch, n } => batch * (triangle_of(n, Triangle::Lower) + n * n),
        _ => 0,
    };
    (elements * size_of::<f32>()) as f64
}

fn triangle_of(n: usize, triangle: Triangle) -> usize {
    if triangle == Triangle::Full { n * n } else { n * (n + 1) / 2 }
}

/// The work, and the operations really done where they are fewer than the job counts.
fn work(job: Job, way: Way, stream: &Stream) -> Result<(Work, Option<f64>), Box<dyn Error>> {
    let stream = stream.with_precision(way.precision());
    Ok(match job {
        Job::Covariance { n, d, triangle } => {
            let x = Buffer::from_host(&stream, &uniform(n * d, 1))?;
            let mut out = Buffer::<f32>::zeros(&stream, d * d)?;
            let options = FactorOptions { triangle, ..FactorOptions::default() };
            if way == Way::Fma {
                let spec = Spec {
                    sharing: Sharing::Expand,
                    reduce_scale: 1.0,
                    bias: Bias::Without,
                    centre_scale: None,
                    triangle,
                    blend: Blend::set(1.0 / n as f32),
                };
                let rung = match CovarianceRung::of(foof_cuda::tile::Kind::F32, d, n, &stream) {
                    CovarianceRung::Tiles { tile, .. } => CovarianceRung::Tiles { math: Math::Fma, tile },
                    CovarianceRung::Plain => CovarianceRung::Plain,
                };
                let mut scratch = Scratch::new(&stream, kernel::scratch_by::<f32>(rung, [n, 1, d], &spec))?;
                let call: Work = Box::new(move || {
                    let (out, x) = (out.view_mut([d, d])?, x.view([n, 1, d])?);
                    Ok(kernel::covariance_by(rung, out, x, &spec, &stream, &mut scratch)?)
                });
                return Ok((call, None));
            }
            let mut scratch = Scratch::new(&stream, factor_scratch::<f32>([n, 1, d], &options))?;
            let call: Work = Box::new(move || {
                let (out, x) = (out.view_mut([d, d])?, x.view([n, 1, d])?);
                input_factor(out, x, &options, &stream, &mut scratch)
            });
            (call, None)
        }
        Job::ConvCovariance { images, triangle } => {
            let (n, conv) = (images.n, images.conv());
            let (shape, features) = ([n, images.c, images.h, images.h], conv.features());
            let out_shape = [conv.groups(), features, features];
            let x = Buffer::from_host(&stream, &uniform(shape.iter().product(), 1))?;
            let mut out = Buffer::<f32>::zeros(&stream, out_shape.iter().product())?;
            let options = FactorOptions { triangle, ..FactorOptions::default() };
            let plan = FactorPlan::new::<f32>(&conv, n, &stream)?;
            let real = 2.0 * plan.multiply_adds() as f64;
            let mut scratch = Scratch::new(&stream, conv_input_factor_scratch::<f32>(&plan, &options))?;
            let call: Work = Box::new(move || {
                let (out, x) = (out.view_mut(out_shape)?, x.view(shape)?);
                conv_input_factor(out, x, &plan, &options, &stream, &mut scratch)
            });
            (call, Some(real))
        }
        Job::Batched { batch, n } => {
            let a = Buffer::from_host(&stream, &covariance_matrices(batch, n, Par::seq()))?;
            let mut out = Buffer::<f32>::zeros(&stream, batch * n * n)?;
            let mut scratch = Scratch::new(&stream, batched_damped_inverse_scratch::<f32>([batch, n]))?;
            let (shape, damping) = ([batch, n, n], Dampings::Same(DAMPING));
            // What failed would be named by `wait`; that nothing does is seen once.
            let view = out.view_mut(shape)?;
            let a_view = a.view(shape)?;
            batched_damped_inverse(view, a_view, 1.0, damping, Triangle::Full, &stream, &mut scratch)?.wait()?;
            let call: Work = Box::new(move || {
                let (out, a) = (out.view_mut(shape)?, a.view(shape)?);
                match way {
                    Way::Block => {
                        let rung = InverseRung::Block;
                        drop(damped_inverse_by(rung, out, a, 1.0, damping, Triangle::Full, &stream, &mut scratch)?);
                    }
                    _ => drop(batched_damped_inverse(out, a, 1.0, damping, Triangle::Full, &stream, &mut scratch)?),
                }
                Ok(())
            });
            (call, None)
        }
        _ => return Err(format!("no kernel for {} {}", job.kernel(), job.shape()).into()),
    })
}

/// The best of `repeats` calls, after two that are not counted.
fn best(stream: &Stream, work: &mut Work, repeats: usize) -> Result<f64, foof::Error> {
    let mut best = f64::INFINITY;
    for repeat in 0..repeats + 2 {
        let seconds = peak::seconds(stream, &mut *work)?;
        if repeat >= 2 {
            best = best.min(seconds);
        }
    }
    Ok(best)
}

/// Measures the first device. `keep` is given the report after each row: a run that is cut off leaves what it has found.
pub fn measure(
    filter: &str,
    repeats: usize,
    tiny: bool,
    mut keep: impl FnMut(&mut Report) -> Result<(), Box<dyn Error>>,
) -> Result<Report, Box<dyn Error>> {
    let device = Device::new(0)?;
    device.load_all()?;
    let stream = Stream::new(&device)?;
    let effort = if tiny { Effort::LEAST } else { Effort::FULL };
    let giga = |unit| peak::rate(&stream, unit, effort).map(|rate| rate / 1e9);
    let peak_gflops = giga(Unit::FmaF32)?;
    let limits = Limits {
        fma_f64_gflops: giga(Unit::FmaF64)?,
        tensor_tf32_gflops: giga(Unit::TensorTf32)?,
        tensor_bf16_gflops: giga(Unit::TensorBf16)?,
        tensor_f64_gflops: giga(Unit::TensorF64)?,
        copy_gbytes: peak::bandwidth(&stream, effort)? / 1e9,
    };
    let isa = format!("{}, {}", device.name(), device.arch());
    let (rows, failed) = (Vec::new(), 0);
    let mut report = Report { peak_gflops, threads: 1, isa, limits: Some(limits), rows, failed };
    for job in jobs(tiny) {
        for &way in Way::all(job) {
            let kernel = format!("{}{}", job.kernel(), way.suffix());
            if !format!("{kernel} {}", job.shape()).contains(filter) {
                continue;
            }
            let unit = match way {
                Way::Tf32 => limits.tensor_tf32_gflops,
                Way::Bf16 => limits.tensor_bf16_gflops,
                Way::Default | Way::Fma | Way::Block => peak_gflops,
            };
            // A row that cannot be is said, and the others are measured.
            let measured = work(job, way, &stream).and_then(|(mut work, real)| {
                let seconds = best(&stream, &mut work, repeats)?;
                Ok(Row::with_flops(kernel.clone(), job, real, seconds))
            });
            match measured {
                Ok(mut row) => {
                    row.of_peak = row.real_gflops.unwrap_or(row.gflops) / unit;
                    row.of_copy = Some(bytes(job) / row.seconds / 1e9 / limits.copy_gbytes);
                    report.rows.push(row);
                    keep(&mut report)?;
                }
                Err(error) => {
                    eprintln!("roofline: {kernel} {}: {error}", job.shape());
                    report.failed += 1;
                }
            }
        }
    }
    Ok(report)
}
