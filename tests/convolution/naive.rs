//! A convolution by its definition: the list of its multiply-adds, from which outputs and both gradients follow.

use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::covariance::Bias;

/// Calls `f(input, weight, output)` with the places, in contiguous tensors, of the operands of every multiply-add of `n` images; `None` for the
/// constant 1 that a bias multiplies.
pub fn terms(conv: &Conv, n: usize, mut f: impl FnMut(Option<usize>, usize, usize)) {
    let [_, inputs, iz, iy, ix] = conv.input_shape(n);
    let [_, outputs, oz, oy, ox] = conv.output_shape(n);
    let [az, ay, ax] = conv.axes3();
    let (c_group, o_group) = (inputs / conv.groups(), outputs / conv.groups());
    for place in 0..n * outputs * oz * oy * ox {
        let (x, y, z) = (place % ox, place / ox % oy, place / (ox * oy) % oz);
        let (o, image) = (place / (ox * oy * oz) % outputs, place / (ox * oy * oz * outputs));
        let row = o * conv.factor_size();
        for c in 0..c_group {
            let channel = image * inputs + o / o_group * c_group + c;
            for tap in 0..conv.taps() {
                let (p, q, r) = (tap / (ay.kernel * ax.kernel), tap / ax.kernel % ay.kernel, tap % ax.kernel);
                // The definition, in signed numbers: nothing of the code under test.
                let at = |axis: &Axis, y: usize, p: usize| {
                    let at = (axis.stride * y + axis.dilation * p) as i64 - axis.padding[0] as i64;
                    (0..axis.size as i64).contains(&at).then_some(at as usize)
                };
                if let (Some(z), Some(y), Some(x)) = (at(&az, z, p), at(&ay, y, q), at(&ax, x, r)) {
                    let feature = match conv.order() {
                        FeatureOrder::ChannelTaps => c * conv.taps() + tap,
                        FeatureOrder::TapsChannel => tap * c_group + c,
                    };
                    f(Some(((channel * iz + z) * iy + y) * ix + x), row + feature, place);
                }
            }
        }
        if conv.bias() == Bias::With {
            f(None, row + conv.features(), place);
        }
    }
}

/// `Y` of contiguous inputs and weights.
pub fn forward(conv: &Conv, n: usize, x: &[f64], w: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; conv.output_shape(n).iter().product()];
    terms(conv, n, |i, j, k| out[k] += w[j] * i.map_or(1.0, |i| x[i]));
    out
}

/// `U` of contiguous errors and inputs.
pub fn weight_gradient(conv: &Conv, n: usize, e: &[f64], x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; conv.weight_shape().iter().product()];
    terms(conv, n, |i, j, k| out[j] += e[k] * i.map_or(1.0, |i| x[i]));
    out
}

/// `D` of contiguous errors and weights.
pub fn input_gradient(conv: &Conv, n: usize, e: &[f64], w: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; conv.input_shape(n).iter().product()];
    terms(conv, n, |i, j, k| i.into_iter().for_each(|i| out[i] += w[j] * e[k]));
    out
}
