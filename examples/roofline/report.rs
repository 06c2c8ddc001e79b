//! What a run found: rows, the peers' file, the table and the JSON.

use super::jobs::Job;
use foof_kernels::Par;
use foof_kernels::conv::Plan;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::Path;

/// A run.
#[derive(Serialize)]
pub struct Report {
    /// The fused multiply-add peak on `threads` threads, the best of many measurements through the run.
    pub peak_gflops: f64,
    /// Threads of every row.
    pub threads: usize,
    /// Instruction set of every row, or the device's name and architecture.
    pub isa: String,
    /// What a device's other units reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// One for each job, then one for each comparison of thread counts.
    pub rows: Vec<Row>,
    /// Rows that could not be measured, and were said to be.
    #[serde(skip)]
    pub failed: usize,
}

/// Rates of a device, measured.
#[derive(Clone, Copy, Serialize)]
pub struct Limits {
    /// Fused multiply-adds of f64.
    pub fma_f64_gflops: f64,
    /// Tensor cores on TF32.
    pub tensor_tf32_gflops: f64,
    /// Tensor cores on bf16.
    pub tensor_bf16_gflops: f64,
    /// Tensor cores on f64.
    pub tensor_f64_gflops: f64,
    /// A copy, bytes read and written.
    pub copy_gbytes: f64,
}

/// One kernel at one shape, against the best peer.
#[derive(Serialize)]
pub struct Row {
    /// As in the peers' JSON.
    pub kernel: String,
    /// As in the peers' JSON.
    pub shape: String,
    /// Best time.
    pub seconds: f64,
    /// Useful rate.
    pub gflops: f64,
    /// The rate of the operations really done, where these are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_gflops: Option<f64>,
    /// Of the machine's peak, or of the device's unit: the real rate where there is one.
    pub of_peak: f64,
    /// Of a device's copy: inputs and output, each moved once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_copy: Option<f64>,
    /// The fastest peer, if any has the operation.
    pub peer: Option<String>,
    /// Its best time.
    pub peer_seconds: Option<f64>,
    /// Its time over ours.
    pub speedup: Option<f64>,
}

impl Row {
    /// A row without a peer; its fraction of peak is set by [`Report::set_peak`].
    pub fn new(kernel: String, job: Job, par: Par, seconds: f64) -> Row {
        Row::with_flops(kernel, job, real_flops(job, par), seconds)
    }

    /// The same with the operations really done, where they are fewer.
    pub fn with_flops(kernel: String, job: Job, real_flops: Option<f64>, seconds: f64) -> Row {
        let rate = |flops: f64| flops / seconds / 1e9;
        Row {
            kernel,
            shape: job.shape(),
            seconds,
            gflops: rate(job.flops()),
            real_gflops: real_flops.map(rate),
            of_peak: 0.0,
            of_copy: None,
            peer: None,
            peer_seconds: None,
            speedup: None,
        }
    }

    /// Takes the peer if it is the first or the fastest so far.
    pub fn meet(&mut self, peer: &str, seconds: f64) {
        if self.peer_seconds.is_none_or(|fastest| seconds < fastest) {
            self.peer = Some(peer.to_owned());
            self.peer_seconds = Some(seconds);
            self.speedup = Some(seconds / self.seconds);
        }
    }
}

/// Operations really done where they are fewer than the job counts: the correlation form's.
fn real_flops(job: Job, par: Par) -> Option<f64> {
    match job {
        Job::ConvCovariance { images, .. } => {
            Some(2.0 * Plan::new::<f32>(&images.conv(), par).multiply_adds() as f64 * images.n as f64)
        }
        _ => None,
    }
}

/// What is read of the JSON of `peers.py`.
#[derive(Deserialize)]
pub struct Peers {
    threads: usize,
    rows: Vec<PeerRow>,
}

#[derive(Deserialize)]
struct PeerRow {
    kernel: String,
    shape: String,
    peer: String,
    seconds: f64,
}

impl Peers {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Peers, Box<dyn Error>> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{} is not the peers' JSON: {e}", path.display()).into())
    }

    /// Threads the peers ran on.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Report {
    /// Fractions of the peak, once it is known.
    pub fn set_peak(&mut self, peak_gflops: f64) {
        self.peak_gflops = peak_gflops;
        self.rows.iter_mut().for_each(|row| row.of_peak = row.real_gflops.unwrap_or(row.gflops) / peak_gflops);
    }

    /// Lets every row meet the peers of its kernel and shape.
    pub fn merge(&mut self, peers: &Peers) {
        for row in &mut self.rows {
            for peer in &peers.rows {
                if peer.kernel == row.kernel && peer.shape == row.shape {
                    row.meet(&peer.peer, peer.seconds);
                }
            }
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let kernel = self.rows.iter().map(|r| r.kernel.len()).max().unwrap_or(0).max(6);
        let shape = self.rows.iter().map(|r| r.shape.len()).max().unwrap_or(0).max(5);
        let mut table = format!("FMA peak {:.1} GFLOP/s (f32, {}", self.peak_gflops, self.isa);
        table += &match &self.limits {
            Some(limits) => format!(
                "); f64 {:.1}, tensor cores TF32 {:.1}, bf16 {:.1}, f64 {:.1} GFLOP/s; copy {:.1} GB/s",
                limits.fma_f64_gflops,
                limits.tensor_tf32_gflops,
                limits.tensor_bf16_gflops,
                limits.tensor_f64_gflops,
                limits.copy_gbytes
            ),
            None => format!(", {} thread{})", self.threads, if self.threads == 1 { "" } else { "s" }),
        };
        table += &format!(
            "\n\n{:kernel$}  {:shape$}  {:>10}  {:>9}  {:>7}  {:10}  {:>10}  {:>7}\n",
            "kernel", "shape", "ms", "GFLOP/s", "of peak", "best peer", "peer ms", "speedup",
        );
        for row in &self.rows {
            let ms = |seconds: f64| format!("{:.4}", seconds * 1e3);
            let line = format!(
                "{:kernel$}  {:shape$}  {:>10}  {:>9.2}  {:>6.1}%  {:10}  {:>10}  {:>7}",
                row.kernel,
                row.shape,
                ms(row.seconds),
                row.gflops,
                row.of_peak * 100.0,
                row.peer.as_deref().unwrap_or("-"),
                row.peer_seconds.map_or("-".into(), ms),
                row.speedup.map_or("-".into(), |s| format!("{s:.2}x")),
            );
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    /// Writes the JSON for programs.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let text = serde_json::to_string_pretty(self)?;
        // Whole or as it was, also for a run that is cut off.
        let unfinished = path.with_extension("unfinished");
        let written = std::fs::write(&unfinished, text + "\n").and_then(|()| std::fs::rename(&unfinished, path));
        written.map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }
}
