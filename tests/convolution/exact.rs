use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::conv::{Axis, Conv, ConvSpec, FeatureOrder, Plan, covariance, scratch};
use foof_kernels::covariance::Sharing;
use foof_kernels::{Blend, Isa, Par, Triangle, View, ViewMut};
use foof_oracle::Random;

fn oracle(x: &[f64], n: usize, conv: &Conv) -> Vec<f64> {
    let [_, c, sz, sy, sx] = conv.input_shape(n);
    let cg = c / conv.groups();
    let size = conv.factor_size();
    let f = conv.features();
    let mut out = vec![0.0; conv.groups() * size * size];
    let [az, ay, ax] = conv.axes3();
    for g in 0..conv.groups() {
        for i in 0..n {
            for z in 0..az.outputs() {
                for y in 0..ay.outputs() {
                    for xx in 0..ax.outputs() {
                        let mut patch = vec![1.0; size];
                        for ch in 0..cg {
                            for p in 0..az.kernel {
                                for q in 0..ay.kernel {
                                    for r in 0..ax.kernel {
                                        let v = match (az.sample(z, p), ay.sample(y, q), ax.sample(xx, r)) {
                                            (Some(a), Some(b), Some(d)) => {
                                                x[(((i * c + g * cg + ch) * sz + a) * sy + b) * sx + d]
                                            }
                                            _ => 0.0,
                                        };
                                        let t = (p * ay.kernel + q) * ax.kernel + r;
                                        patch[conv.feature(ch, t)] = v;
                                    }
                                }
                            }
                        }
                        let _ = f;
                        for a in 0..size {
                            if patch[a] != 0.0 {
                                for b in 0..size {
                                    out[(g * size + a) * size + b] += patch[a] * patch[b];
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    out
}

fn check(conv: &Conv, n: usize, random: &mut Random) {
    let shape = conv.input_shape(n);
    let len: usize = shape.iter().product();
    let x: Vec<f64> = (0..len).map(|_| random.integer(3)).collect();
    let x32: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let expected = oracle(&x, n, conv);
    let (g, s) = (conv.groups(), conv.factor_size());
    for &isa in Isa::available() {
        for threads in [1, 2] {
            let par = Par::threads(threads).with_isa(isa);
            for plan in [Plan::new::<f32>(conv, par), Plan::correlation::<f32>(conv, par), Plan::unfold(conv)] {
                for triangle in [Triangle::Full, Triangle::Lower] {
                    let mut out = vec![f32::NAN; g * s * s];
                    let spec = ConvSpec { sharing: Sharing::Expand, triangle, blend: Blend::set(1.0) };
                    let mut memory = MemBuffer::new(scratch::<f32>(n, &plan, Sharing::Expand, par));
                    covariance(
                        ViewMut::new(&mut out, [g, s, s]).unwrap(),
                        View::new(&x32, shape).unwrap(),
                        &plan,
                        &spec,
                        par,
                        MemStack::new(&mut memory),
                    );
                    for i in 0..g * s * s {
                        let (r, c) = (i / s % s, i % s);
                        if triangle == Triangle::Lower && c > r {
                            assert!(out[i].is_nan());
                            continue;
                        }
                        assert_eq!(
                            f64::from(out[i]),
                            expected[i],
                            "{conv:?}\n{plan} {triangle:?} {isa} n={n} entry {r},{c} group {}",
                            i / s / s
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn quick() {
    let mut random = Random::new(7);
    for k in 1..=4 {
        for s in 1..=3 {
            for d in 1..=2 {
                for pad in [[0, 0], [1, 1], [2, 0], [k, k + 1]] {
                    for size in [1, 2, 3, 5, 9] {
                        for (c, n) in [(1, 2), (3, 2), (10, 1)] {
                            let axis = Axis::new(size, k).stride(s).dilation(d).padding_each(pad);
                            for order in [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel] {
                                if let Ok(conv) = Conv::new(c, 4, [axis, axis]) {
                                    check(&conv.with_order(order), n, &mut random);
                                }
                                let deep = Conv::new(c, 4, [axis, axis, axis]);
                                if let Some(conv) = deep.ok().filter(|_| k < 3 && c == 3) {
                                    check(&conv.with_order(order).with_bias(), n, &mut random);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    for c in [47, 48, 49, 70, 100] {
        for order in [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel] {
            let axis = Axis::new(4, 3).padding(1);
            check(&Conv::new(c, 4, [axis, axis]).unwrap().with_order(order).with_bias(), 3, &mut random);
            check(&Conv::new(c, 4, [axis]).unwrap().with_order(order), 3, &mut random);
        }
    }
    let axis = Axis::new(5, 3).padding(1);
    check(&Conv::new(12, 24, [axis, axis]).unwrap().with_groups(12).unwrap().with_bias(), 3, &mut random);
    check(&Conv::new(12, 24, [axis, axis]).unwrap().with_groups(4).unwrap(), 3, &mut random);
    for c in [2, 15, 16, 17, 40] {
        for k in [1, 2, 3, 5] {
            for (stride, dilation) in [(1, 1), (2, 1), (1, 2)] {
                let (y, x) = (Axis::new(9, k).padding(1).stride(stride), Axis::new(11, k).dilation(dilation));
                for order in [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel] {
                    check(&Conv::new(c, c, [y, x]).unwrap().with_groups(c).unwrap().with_order(order), 3, &mut random);
                    check(&Conv::new(c, c, [y, x, y]).unwrap().with_groups(c).unwrap(), 2, &mut random);
                }
            }
        }
    }
    let axis = Axis::new(40, 3).padding(1);
    check(&Conv::new(16, 24, [axis, axis]).unwrap(), 20, &mut random);
    check(&Conv::new(3, 24, [axis, axis]).unwrap(), 20, &mut random);
    check(&Conv::new(50, 24, [axis, axis]).unwrap(), 2, &mut random);
}
