//! One call on a device: memory there and back again.

use foof_cuda::covariance::{Rung, Spec, covariance_by, scratch_by};
use foof_cuda::tile::{Kind, Math};
use foof_cuda::{Buffer as Memory, Scratch, Stream, View};
use foof_emulation as emulation;
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Element, Input, Triangle};
use foof_oracle::Dense;
use foof_oracle::compare::assert_same_bits;
use foof_oracle::layout::{Buffer, Layout};
use num_traits::{NumCast, ToPrimitive};

/// What a type of rows must be for the tests.
pub trait Number: Input<Acc: Element> + bytemuck::Pod + NumCast + ToPrimitive {}
impl<I: Input<Acc: Element> + bytemuck::Pod + NumCast + ToPrimitive> Number for I {}

/// Rows as they are, the whole matrix.
pub fn plain<T: Element>(blend: Blend<T>) -> Spec<T> {
    Spec {
        sharing: Sharing::Expand,
        reduce_scale: T::one(),
        bias: Bias::Without,
        centre_scale: None,
        triangle: Triangle::Full,
        blend,
    }
}

/// Row-major, at an address and with steps that are multiples of 16 bytes, and a gap between datapoints: read in vectors. Memory ends with the last
/// element, which a sanitizer watches.
pub fn padded<I: Number>(values: &[f64], [n, t, d]: [usize; 3]) -> Buffer<I, 3> {
    let step = d.next_multiple_of(8);
    let strides = [(t + 1) * step, step, 1].map(|s| s as isize);
    let from = Buffer::<I, 3>::embed(values, [n, t, d], Layout::RowMajor);
    let poison = foof_oracle::layout::poison();
    let mut to = Buffer { data: vec![poison; n * (t + 1) * step], offset: 0, shape: [n, t, d], strides };
    let places = to.places();
    for (&place, value) in places.iter().zip(from.elements()) {
        to.data[place] = value;
    }
    to.data.truncate(places.last().map_or(0, |last| last + 1));
    to
}

/// A tensor in a layout of the tests', number `which`, or [`padded`].
pub fn embedded<I: Number>(values: &Dense, shape: [usize; 3], which: usize) -> Buffer<I, 3> {
    match which % (Layout::ALL.len() + 2) {
        layout if layout < Layout::ALL.len() => Buffer::embed(&values.data, shape, Layout::ALL[layout]),
        _ => padded(&values.data, shape),
    }
}

/// The tensor's memory on the device.
pub fn upload<T: bytemuck::Pod, const R: usize>(stream: &Stream, buffer: &Buffer<T, R>) -> Memory<T> {
    Memory::from_host(stream, &buffer.data).expect("memory")
}

/// The tensor on the device.
pub fn view<'a, T: bytemuck::Pod, const R: usize>(memory: &'a Memory<T>, buffer: &Buffer<T, R>) -> View<'a, T, R> {
    memory.strided(buffer.offset, buffer.shape, buffer.strides).expect("inside the buffer")
}

/// `out` after a covariance on `rung`.
pub fn run<I: Number>(
    stream: &Stream,
    rung: Rung,
    x: &Buffer<I, 3>,
    spec: &Spec<I::Acc>,
    mut out: Buffer<I::Acc, 2>,
) -> Buffer<I::Acc, 2> {
    let (from, mut to) = (upload(stream, x), upload(stream, &out));
    let mut scratch = Scratch::new(stream, scratch_by::<I>(rung, x.shape, spec)).expect("memory");
    let target = to.strided_mut(out.offset, out.shape, out.strides).expect("inside the buffer");
    covariance_by(rung, target, view(&from, x), spec, stream, &mut scratch).expect("enqueued");
    out.data = to.to_host(stream).expect("copied");
    assert_same_bits(&from.to_host(stream).expect("copied"), &x.data, "the input");
    out.assert_margins_intact(&format!("{rung:?}"));
    out
}

/// The rows whose second moment is taken, as the definition has it.
pub fn rows_of<T: Element>(x: &Dense, [n, t, d]: [usize; 3], spec: &Spec<T>) -> Dense {
    let count = if spec.sharing == Sharing::Expand { n * t } else { n };
    let sum = |i: usize| (0..n * t).map(|r| x[(r, i)]).sum::<f64>();
    let centre: Vec<f64> = (0..d).map(|i| spec.centre_scale.map_or(0.0, |s| s.to_f64() * sum(i))).collect();
    Dense::from_fn(count, d + spec.bias.columns(), |r, i| {
        if i == d {
            return 1.0;
        }
        let value = match spec.sharing {
            Sharing::Expand => x[(r, i)],
            Sharing::Reduce => (0..t).map(|p| x[(r * t + p, i)]).sum::<f64>() * spec.reduce_scale.to_f64(),
        };
        value - centre[i]
    })
}

/// The rungs for rows of `I`; of rows that are made first, which are as wide as the sums, if `prepared`.
pub fn rungs<I: Input>(prepared: bool) -> Vec<Rung> {
    let kind = Kind::of::<I>();
    Rung::all(if prepared { kind.widened() } else { kind })
}

/// Whether the rung rounds its inputs.
pub fn rounds(rung: Rung) -> bool {
    matches!(rung, Rung::Tiles { math: Math::Tf32 | Math::Bf16, .. })
}

/// A stream, with the emulation's order of threads and blocks number `which`; or none, where there is nothing to run on.
pub fn stream_in_order(which: usize) -> Option<Stream> {
    emulation::set_order((which % 4) as i32);
    emulation::stream()
}
