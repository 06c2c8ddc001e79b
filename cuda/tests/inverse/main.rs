//! Damped inverses of batches on a device, by each rung: the strategies, oracles and bounds of the CPU's `tests/batched.rs`.

mod errors;
mod failures;
mod layouts;
mod values;

use foof::Element;
use foof_cuda::inverse::{self, Rung, damped_inverse_by, damped_inverse_scratch};
use foof_cuda::pending::Record;
use foof_cuda::{Buffer as DeviceBuffer, Scratch, Stream};
use foof_kernels::Triangle;
use foof_kernels::batched::Dampings;
use foof_oracle::generate::log_spectrum;
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

/// A stream, or the end of the test where there is nothing to run it on.
macro_rules! stream {
    () => {
        match foof_emulation::stream() {
            Some(stream) => stream,
            None => return,
        }
    };
}
pub(crate) use stream;

/// What a call does beside its matrices.
#[derive(Clone, Copy)]
struct How<'a, T> {
    scale: T,
    damping: Dampings<'a, T>,
    triangle: Triangle,
}

impl<'a, T: Element> How<'a, T> {
    fn damped(damping: Dampings<'a, T>) -> Self {
        How { scale: T::one(), damping, triangle: Triangle::Full }
    }

    fn same(damping: f64) -> Self {
        How::damped(Dampings::Same(T::from_f64(damping)))
    }
}

/// Those that take matrices of order `n` on this device.
fn rungs<T>(n: usize, stream: &Stream) -> impl Iterator<Item = Rung> {
    let shared = stream.device().shared_memory();
    Rung::ALL.into_iter().filter(move |rung| n <= rung.largest::<T>(shared))
}

fn embed<T: Element>(matrices: &[Dense], shape: [usize; 3], layout: Layout) -> Buffer<T, 3> {
    let values: Vec<f64> = matrices.iter().flat_map(|m| m.data.iter().copied()).collect();
    Buffer::embed(&values, shape, layout)
}

/// Positive definite matrices of order `n`, rounded to `T`.
fn definite<T: Element>(random: &mut Random, batch: usize, n: usize, condition: f64) -> Vec<Dense> {
    (0..batch).map(|_| random.symmetric(&log_spectrum(n, condition)).rounded::<T>()).collect()
}

/// Inverts what `from` holds into `out`, both copied to the device and `out` back, its margins looked at.
fn run<T: Element>(
    rung: Rung,
    from: &Buffer<T, 3>,
    out: &mut Buffer<T, 3>,
    how: How<'_, T>,
    stream: &Stream,
) -> Vec<(usize, Record)> {
    let a = DeviceBuffer::from_host(stream, &from.data).expect("memory");
    let mut to = DeviceBuffer::from_host(stream, &out.data).expect("memory");
    let mut scratch = Scratch::new(stream, damped_inverse_scratch::<T>(from.shape[0])).expect("memory");
    let view = a.strided(from.offset, from.shape, from.strides).expect("inside");
    let target = to.strided_mut(out.offset, out.shape, out.strides).expect("inside");
    let pending = damped_inverse_by(rung, target, view, how.scale, how.damping, how.triangle, stream, &mut scratch);
    let failures = pending.expect("enqueued").wait().expect("run");
    out.data = to.to_host(stream).expect("copied");
    out.assert_margins_intact("damped_inverse");
    failures
}

/// The same from rows to rows, out of poison.
fn invert<T: Element>(
    rung: Rung,
    a: &[Dense],
    n: usize,
    how: How<'_, T>,
    stream: &Stream,
) -> (Buffer<T, 3>, Vec<(usize, Record)>) {
    let shape = [a.len(), n, n];
    let (from, mut out) = (embed::<T>(a, shape, Layout::RowMajor), Buffer::poisoned(shape, Layout::RowMajor));
    let failures = run(rung, &from, &mut out, how, stream);
    (out, failures)
}

/// The matrix `index` of a batch, widened.
fn matrix<T: Element>(out: &Buffer<T, 3>, index: usize) -> Dense {
    let n = out.shape[1];
    let elements = out.elements();
    let values: Vec<f64> = elements[index * n * n..][..n * n].iter().map(|&v| Element::to_f64(v)).collect();
    Dense::from_slice(n, n, &values)
}

/// The orders at which the launch changes, and their neighbours.
fn edges<T>() -> impl Iterator<Item = usize> {
    let last = inverse::Rung::Registers.largest::<T>(usize::MAX);
    [16, 32, 64, 128, 256].into_iter().filter(move |&edge| edge <= last).flat_map(|edge| [edge - 1, edge, edge + 1])
}
