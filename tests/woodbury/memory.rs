//! What a solve takes beyond its arguments, its result and one `N x N` matrix: at most a tenth of these.

use foof::layer::Layer;
use foof::woodbury::{Direction, LayerBatch, WoodburyOptions, natural_gradient_scratch};
use foof::{MatRef, Par};

const SIZES: [usize; 5] = [784, 1000, 1000, 1000, 10];

/// Rows of the gradient.
const M: usize = 100;

#[test]
fn scratch_is_one_system_and_a_tenth() {
    for n in [100, 1000, 4000] {
        let layers: Vec<Layer> = SIZES.windows(2).map(|w| Layer::dense(w[0], w[1]).expect("a layer")).collect();
        let memory = vec![0.0f32; n * 1000];
        let batch = |n: usize| -> Vec<LayerBatch<'_, f32>> {
            let rows = |d: usize| MatRef::new(&memory, [n, d]).expect("the shape");
            let each = layers.iter().map(|layer| LayerBatch::new(layer, rows(layer.inputs()), rows(layer.outputs())));
            each.map(|batch| batch.expect("the layer's shapes")).collect()
        };
        let u: Vec<_> = batch(M).into_iter().map(|batch| Direction::LowRank { batch, scale: 1.0 }).collect();
        let batch = batch(n);
        for threads in [1, 2] {
            let scratch = natural_gradient_scratch(&batch, &u, &WoodburyOptions::new(1.0), Par::threads(threads));
            let bytes = scratch.unaligned_bytes_required();
            let [inputs, weights] = [
                SIZES.windows(2).map(|w| (n + M) * (w[0] + w[1])).sum::<usize>() * 4,
                SIZES.windows(2).map(|w| w[0] * w[1]).sum::<usize>() * 4,
            ];
            let system = n * n * 4;
            let all = (inputs + weights + system) as f64;
            let beyond = (bytes - system) as f64 / all;
            println!("N = {n}, {threads} threads: {:.1}% beyond arguments, result and system", beyond * 100.0);
            assert!(beyond <= 0.1, "N = {n}, {threads} threads: {bytes} bytes");
        }
    }
}
