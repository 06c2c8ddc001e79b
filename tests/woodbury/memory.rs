//! What a solve takes beyond its arguments: one `N x N` matrix, the larger of its packed triangle and one layer's packed rows, tiles.

use foof::layer::Layer;
use foof::woodbury::{Direction, LayerBatch, WoodburyOptions, natural_gradient_scratch};
use foof::{MatRef, Par};

const SIZES: [usize; 5] = [784, 1000, 1000, 1000, 10];

/// Rows of the gradient.
const M: usize = 100;

/// Bytes of tiles and slabs of one thread, at most: six of 240 x 240 in f32, the largest that any step has.
const TILES: usize = 6 * 240 * 240 * 4;

#[test]
fn scratch_is_one_system_one_layer_and_tiles() {
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
            // Both batches' rows of the largest layer, each rounded up to whole tiles.
            let layer = (n + M + 2 * 240) * (1000 + 1000) * 4;
            // While the system is factored, its triangle packed both ways.
            let system = n * n * 4;
            assert!(bytes <= system + layer.max(system + 2 * n * 240 * 4) + threads * TILES, "N = {n}: {bytes} bytes");
            let all = (inputs + weights + system) as f64;
            println!(
                "N = {n}, {threads} threads: {:.1}% beyond arguments and system",
                (bytes - system) as f64 / all * 100.0
            );
        }
    }
}
