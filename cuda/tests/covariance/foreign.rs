//! Memory and a stream that another library made, by their addresses: the bits of our own.

use foof::covariance::FactorOptions;
use foof::cuda::covariance::{factor_scratch, input_factor, input_factor_alloc};
use foof::cuda::{Buffer, Scratch, Stream, View, ViewMut};
use foof_cuda::cudarc::driver::{DevicePtr, DevicePtrMut};
use foof_emulation as emulation;
use foof_oracle::Random;
use foof_oracle::compare::assert_same_bits;

/// At addresses that are multiples of 16 bytes, and of an element only: there rows cannot be read in vectors.
#[test]
fn foreign_memory_and_streams_serve_as_ours() {
    let Some(stream) = emulation::stream() else { return };
    let device = stream.device();
    let (n, d, lead) = (70, 12, 16);
    let (shape, strides, len) = ([n, 1, d], [lead as isize, 0, 1], n * lead);
    let x: Vec<f32> = Random::new(8).normals(1, len + 4).data.iter().map(|&x| x as f32).collect();
    let options = FactorOptions::default();
    let theirs = stream.cudarc().clone_htod(&x).expect("memory");
    let mut out = stream.cudarc().alloc_zeros::<f32>(d * d + 1).expect("memory");
    let (from, to) = (theirs.device_ptr(stream.cudarc()).0, out.device_ptr_mut(stream.cudarc()).0);
    // SAFETY: the stream outlives what is made of its handle.
    let foreign = unsafe { Stream::from_raw(device, stream.cudarc().cu_stream()) };
    let mut scratch = Scratch::new(&foreign, factor_scratch::<f32>(shape, &options)).expect("memory");
    for offset in [0, 1, 2, 4] {
        let own = Buffer::from_host(&stream, &x).expect("memory");
        let mut expected = Buffer::<f32>::zeros(&stream, d * d).expect("memory");
        let view = own.strided(offset, shape, strides).expect("inside");
        input_factor_alloc(expected.view_mut([d, d]).expect("inside"), view, &options, &stream).expect("a factor");

        // SAFETY: both live until their work is done below, and nothing else uses them.
        let (to, view) = unsafe {
            let view = View::<f32, 3>::from_raw("x", device, from + 4 * offset as u64, len, shape, strides);
            let to = ViewMut::<f32, 2>::from_raw("out", device, to + 4, d * d, [d, d], [d as isize, 1]);
            (to.expect("theirs"), view.expect("theirs"))
        };
        input_factor(to, view, &options, &foreign, &mut scratch).expect("a factor");
        let got = stream.cudarc().clone_dtoh(&out).expect("copied");
        stream.synchronize().expect("done");
        assert_same_bits(&got[1..], &expected.to_host(&stream).expect("copied"), &format!("offset {offset}"));
    }
}
