//! The machine's own limit, which every rate is measured against.

use crate::element::Element;
use crate::engine::rows::CHAINS;
use crate::par::Par;
use std::time::Instant;

/// Peak rate of fused multiply-adds in operations per second: a loop on registers alone, on `par`'s threads and
/// instruction set, the best of several runs of a few milliseconds.
pub fn fma<T: Element>(par: Par) -> f64 {
    const ROUNDS: usize = 1 << 20;
    const RUNS: usize = 9;
    let kernels = T::kernels(par.isa());
    let operations = (2 * CHAINS * kernels.lanes * ROUNDS * par.degree()) as f64;
    let run = || {
        let start = Instant::now();
        par.workers(&|_| {
            // SAFETY: the kernels belong to an ISA this CPU has.
            core::hint::black_box(unsafe { (kernels.fma_chains)(ROUNDS) });
        });
        operations / start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}
