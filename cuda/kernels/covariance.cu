// Covariances `out <- beta out + alpha X^T X`, X `[N, T, d]` with any strides, or `[N T, d]`, a virtual column of ones after it if there is a bias.
//
//   1  covariance_plain_*        one thread for each entry, from the definition: the second oracle
//   2  covariance_fma_*          tiles, fused multiply-adds
//   3  covariance_tf32x3_*       tensor cores with f32's accuracy; covariance_f64_* f64's tensor cores
//      covariance_tf32_*, covariance_bf16_*   inputs rounded to TF32 or bf16: named options
//
// One block computes one tile of the lower triangle, for one chunk of depth. With one chunk it blends the tile into the output; with more, each
// writes a slot of scratch, and covariance_finish_* adds them in order. Rows that are sums over positions, or centred, covariance_rows_* makes first. The suffix is the type of X, the number before it the tile's side.
#include "epilogue.cuh"

struct CovarianceParams {
    const void* x;
    void* out;
    void* slots;               // [chunks][tiles of the triangle][side][side]
    long long rows;            // N T
    long long chunk;           // rows of a chunk, below 2^31
    long long datapoint_step;  // elements of X
    long long position_step;
    long long feature_step;
    long long out_row_step;    // elements of out
    long long out_column_step;
    double alpha, beta;
    unsigned positions;        // T, or 0 if rows are `position_step` apart throughout
    int features;              // d
    int size;                  // rows of out: d, or d + 1 with a bias
    int chunks;
    int reading;               // Reading
    int full;                  // mirror the lower triangle
};
static_assert(sizeof(CovarianceParams) == 120, "as in Rust");

static_assert(tile_bytes<Fma128<float>> == 66048 && tile_bytes<Fma64<float>> == 36864 && tile_bytes<Fma64<double>> == 52224, "as in tile.rs");

template <class T> __device__ __forceinline__ Symmetric<T> output(const CovarianceParams& p) {
    return {(T*)p.out, p.out_row_step, p.out_column_step, (T)p.alpha, (T)p.beta, p.size, p.full != 0};
}

// Rows from `row` on.
__device__ __forceinline__ Rows rows_from(const CovarianceParams& p, long long& skipped, long long row) {
    if (p.positions == 0) {
        skipped = row * p.position_step;
        return {0, p.position_step, 0, 0};
    }
    skipped = row / p.positions * p.datapoint_step;
    return {p.datapoint_step, p.position_step, (unsigned)(row % p.positions), p.positions};
}

template <class Tile> __device__ __forceinline__ void covariance_tile(const CovarianceParams& p) {
    using T = typename Tile::Stage;
    using Value = typename Tile::Value;
    SHARED(unsigned char, shared);
    const int tiles = (p.size + Tile::side - 1) / Tile::side;
    const TilePlace place = triangle_tile(blockIdx.x, tiles);
    const long long begin = blockIdx.y * p.chunk;
    const int depth = (int)min(p.chunk, p.rows - begin);
    long long skipped;
    const Rows rows = rows_from(p, skipped, begin);
    auto columns = [&](int tile) {
        const int first = tile * Tile::side;
        const int ones = p.size > p.features ? p.features - first : -1;
        return Columns<T, Rows>{(const T*)p.x + skipped + first * p.feature_step, rows, p.feature_step, depth, p.features - first, ones, p.reading};
    };
    Tile tile;
    tile.clear();
    multiply(tile, columns(place.row), columns(place.column), place.row == place.column, depth, (T*)shared);
    Value* finished = (Value*)shared;
    to_shared(tile, finished);
    if (p.chunks == 1) {
        blend_symmetric<Tile::side, Tile::side, Tile::threads>(finished, output<Value>(p), place.row * Tile::side, place.column * Tile::side);
    } else {
        to_slot<Tile>(finished, (Value*)p.slots + ((long long)blockIdx.y * gridDim.x + blockIdx.x) * (Tile::side * Tile::side));
    }
}

// grid: tiles of the triangle x bands, BAND_THREADS threads.
template <class T, int SIDE> __device__ __forceinline__ void covariance_finish(const CovarianceParams& p) {
    SHARED(T, shared);
    constexpr int SLOT = SIDE * SIDE;
    const TilePlace place = triangle_tile(blockIdx.x, (p.size + SIDE - 1) / SIDE);
    finish_band<SIDE>((const T*)p.slots + (long long)blockIdx.x * SLOT, p.chunks, (long long)gridDim.x * SLOT, place, output<T>(p), shared);
}

// grid: size x size entries, 256 threads. Those above the diagonal have nothing to do.
template <class T> __device__ __forceinline__ void covariance_plain(const CovarianceParams& p) {
    using Value = typename Widened<T>::Type;
    const long long entry = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int i = (int)(entry / p.size), j = (int)(entry % p.size);
    if (i >= p.size || j > i) {
        return;
    }
    const long long positions = p.positions == 0 ? max(p.rows, 1LL) : p.positions;
    auto at = [&](long long row, int column) {
        const long long start = row / positions * p.datapoint_step + row % positions * p.position_step;
        return column == p.features ? (Value)1 : widen(((const T*)p.x)[start + column * p.feature_step]);
    };
    Value sum = 0;
    for (long long row = 0; row < p.rows; row++) {
        sum = fma(at(row, i), at(row, j), sum);
    }
    const Symmetric<Value> out = output<Value>(p);
    const Value value = blended(sum, out.entry(i, j), out.alpha, out.beta);
    *out.entry(i, j) = value;
    if (out.full) {
        *out.entry(j, i) = value;
    }
}

// Rows that are sums over positions, or centred, are made once: rows[n][i] <- scale * sum over t of x[n][t][i] - centre[i].
struct RowsParams {
    const void* x;
    void* rows;               // [count][lead]
    const void* centre;       // `features` values, or null
    long long count;          // rows: N, or N T where each position is one
    long long datapoint_step; // elements of X
    long long position_step;
    long long feature_step;
    double scale;
    unsigned positions;       // T
    int summed;               // whether a row is the sum over a datapoint's positions, or one position
    int features;
    int lead;
};
static_assert(sizeof(RowsParams) == 80, "as in Rust");

// grid: count x features, 256 threads.
template <class T> __device__ __forceinline__ void covariance_rows(const RowsParams& p) {
    using Value = typename Widened<T>::Type;
    const long long entry = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long row = entry / p.features;
    const int i = (int)(entry % p.features);
    if (row >= p.count) {
        return;
    }
    const long long datapoint = p.summed ? row : row / p.positions, position = p.summed ? 0 : row % p.positions;
    const T* x = (const T*)p.x + datapoint * p.datapoint_step + position * p.position_step + i * p.feature_step;
    Value value = widen(*x);
    if (p.summed) {
        for (unsigned t = 1; t < p.positions; t++) {
            value += widen(x[t * p.position_step]);
        }
        value *= (Value)p.scale;
    }
    if (p.centre != nullptr) {
        value -= ((const Value*)p.centre)[i];
    }
    ((Value*)p.rows)[row * p.lead + i] = value;
}

// rows[0][i] <- scale * sum over all positions of x[n][t][i]. grid: 32 features each, WARPS x 32 threads; warp w takes rows w, w + WARPS, ..
constexpr int WARPS = 8;
template <class T> __device__ __forceinline__ void covariance_means(const RowsParams& p) {
    using Value = typename Widened<T>::Type;
    SHARED(Value, partial); // [WARPS][32]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    Value sum = 0;
    if (i < p.features) {
        for (long long row = warp; row < p.count; row += WARPS) {
            const long long start = row / p.positions * p.datapoint_step + row % p.positions * p.position_step;
            sum += widen(((const T*)p.x)[start + i * p.feature_step]);
        }
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && i < p.features) {
        for (int w = 1; w < WARPS; w++) {
            sum += partial[w * 32 + lane];
        }
        ((Value*)p.rows)[i] = sum * (Value)p.scale;
    }
}

#define PLAIN(name, T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) name(const CovarianceParams p) { covariance_plain<T>(p); }       \
    KERNEL(name)
#define ROWS(rows, means, T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) rows(const RowsParams p) { covariance_rows<T>(p); }              \
    KERNEL(rows)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) means(const RowsParams p) { covariance_means<T>(p); }     \
    KERNEL(means)
#define TILES(name, BLOCKS, ...)                                                                                       \
    extern "C" __global__ void __launch_bounds__((__VA_ARGS__::threads), BLOCKS) name(const CovarianceParams p) {      \
        covariance_tile<__VA_ARGS__>(p);                                                                               \
    }                                                                                                                  \
    KERNEL(name)
#define FINISH(name, T, SIDE)                                                                                          \
    extern "C" __global__ void __launch_bounds__(BAND_THREADS) name(const CovarianceParams p) {                      \
        covariance_finish<T, SIDE>(p);                                                                                 \
    }                                                                                                                  \
    KERNEL(name)

// 1
PLAIN(covariance_plain_f32, float)
PLAIN(covariance_plain_f64, double)
PLAIN(covariance_plain_bf16, bf16)
PLAIN(covariance_plain_f16, f16)

// 2
TILES(covariance_fma_128_f32, 2, Fma128<float>)
TILES(covariance_fma_64_f32, 4, Fma64<float>)
TILES(covariance_fma_64_f64, 3, Fma64<double>)

// 3, and what is exact in tensor cores: products of half-width inputs, and all of f64
TILES(covariance_tf32x3_128_f32, 1, Mma128<float, Tf32x3<float>>)
TILES(covariance_tf32x3_64_f32, 3, Mma64<float, Tf32x3<float>>)
TILES(covariance_mma_64_f64, 3, Mma64<double, F64>)
TILES(covariance_mma_128_bf16, 1, Mma128<bf16, Bf16Promoted<bf16>>)
TILES(covariance_mma_64_bf16, 4, Mma64<bf16, Bf16Promoted<bf16>>)
TILES(covariance_mma_128_f16, 1, Mma128<f16, Tf32x3<f16>>)
TILES(covariance_mma_64_f16, 3, Mma64<f16, Tf32x3<f16>>)

// Options
TILES(covariance_tf32_128_f32, 2, Mma128<float, Tf32<float>>)
TILES(covariance_tf32_64_f32, 4, Mma64<float, Tf32<float>>)
TILES(covariance_bf16_128_f32, 1, Mma128<float, Bf16<float>>)
TILES(covariance_bf16_64_f32, 4, Mma64<float, Bf16<float>>)

FINISH(covariance_finish_128_f32, float, 128)
FINISH(covariance_finish_64_f32, float, 64)
FINISH(covariance_finish_64_f64, double, 64)

ROWS(covariance_rows_f32, covariance_means_f32, float)
ROWS(covariance_rows_f64, covariance_means_f64, double)
ROWS(covariance_rows_bf16, covariance_means_bf16, bf16)
ROWS(covariance_rows_f16, covariance_means_f16, f16)
