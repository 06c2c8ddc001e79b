// Implicit unfolding: the dense covariance's tiles over patches that are formed while they are loaded, for convolutions that read a sample through one
// tap (kernel = stride), where the correlation form saves nothing. Rows are outputs of all images, columns features, and a column of ones with a bias.
#include "conv.cuh"

struct ConvUnfoldParams {
    ConvImages x;
    ConvOutput out;
    void* slots;          // [group][chunk][tile of the triangle][side][side]
    long long rows;       // outputs of all images
    long long chunk;      // of a chunk
    ConvGeometry geometry;
    ConvFeatures features;
    Divisor outputs[3];
    int size;             // features, and 1 with a bias
    int chunks;
    int full;
};
static_assert(sizeof(ConvUnfoldParams) == 264, "as in Rust");

// A tile's columns at a chunk's rows. A thread keeps to one column.
template <class T> struct Patches {
    const T* base;       // this thread's column at the chunk's first image, output 0
    const ConvUnfoldParams& p;
    unsigned first;      // outputs of that image before the chunk
    int count;
    int shift[3];        // of its tap's samples from the outputs'
    bool inside, ones;   // whether it is a feature, or the column of ones

    template <class Tile> __device__ __forceinline__ void load(T* stage, int from) const {
        static_assert(Tile::threads % Tile::side == 0, "a thread has one column");
        const ConvGeometry& g = p.geometry;
        const int i = threadIdx.x % Tile::side;
#pragma unroll 4
        for (int k = threadIdx.x / Tile::side; k < Tile::depth; k += Tile::threads / Tile::side) {
            const unsigned position = first + from + k;
            const unsigned line = p.outputs[2].divide(position), plane = p.outputs[1].divide(line), image = p.outputs[0].divide(plane);
            const int at[3] = {(int)(plane - image * p.outputs[0].divisor), (int)(line - plane * p.outputs[1].divisor),
                               (int)(position - line * p.outputs[2].divisor)};
            bool exists = inside && from + k < count;
            long long offset = image * p.x.image;
            for (int axis = 0; axis < 3; axis++) {
                const int sample = at[axis] * g.stride[axis] + shift[axis];
                exists = exists && sample >= 0 && sample < g.size[axis];
                offset += sample * p.x.axis[axis];
            }
            T* to = stage + k * Tile::lead + i;
            if (ones) {
                *to = from + k < count ? one<T>() : T{0};
            } else {
                copy_element(to, exists ? base + offset : (const T*)p.x.data, exists);
            }
        }
    }
};

template <class T> __device__ __forceinline__ Symmetric<T> unfold_output(const ConvUnfoldParams& p) {
    return {p.out.entry<T>(blockIdx.z, 0, 0), p.out.row, p.out.column, (T)p.out.alpha, (T)p.out.beta, p.size, p.full != 0};
}

// grid: tiles of the triangle, chunks, groups; as many threads as the tile has.
template <class Tile> __device__ __forceinline__ void conv_unfold(const ConvUnfoldParams& p) {
    using T = typename Tile::Stage;
    using Value = typename Tile::Value;
    SHARED(unsigned char, shared);
    const TilePlace place = triangle_tile(blockIdx.x, (p.size + Tile::side - 1) / Tile::side);
    const long long begin = blockIdx.y * p.chunk, positions = p.geometry.positions();
    const int depth = (int)max(0LL, min(p.chunk, p.rows - begin)), count = p.features.channels * p.features.taps;
    const T* image = (const T*)p.x.data + begin / positions * p.x.image + (long long)blockIdx.z * p.x.channels * p.x.channel;
    auto patches = [&](int tile) {
        const int feature = tile * Tile::side + (int)threadIdx.x % Tile::side;
        const bool inside = feature < count;
        const ConvTap tap(p.geometry, inside ? p.features.tap(feature) : 0);
        int shift[3];
        for (int axis = 0; axis < 3; axis++) {
            shift[axis] = p.geometry.dilation[axis] * tap.at[axis] - p.geometry.padding[axis];
        }
        const long long channel = inside ? p.features.channel(feature) * p.x.channel : 0;
        return Patches<T>{image + channel, p, (unsigned)(begin % positions), depth, {shift[0], shift[1], shift[2]}, inside, feature == count && p.size > count};
    };
    Tile tile;
    tile.clear();
    multiply(tile, patches(place.row), patches(place.column), place.row == place.column, depth, (T*)shared);
    Value* finished = (Value*)shared;
    to_shared(tile, finished);
    if (p.chunks == 1) {
        blend_symmetric<Tile::side, Tile::side, Tile::threads>(finished, unfold_output<Value>(p), place.row * Tile::side, place.column * Tile::side);
    } else {
        const long long slot = ((long long)blockIdx.z * p.chunks + blockIdx.y) * gridDim.x + blockIdx.x;
        to_slot<Tile>(finished, (Value*)p.slots + slot * (Tile::side * Tile::side));
    }
}

// grid: tiles of the triangle, bands, groups; BAND_THREADS threads.
template <class T, int SIDE> __device__ __forceinline__ void conv_unfold_finish(const ConvUnfoldParams& p) {
    SHARED(T, shared);
    constexpr int SLOT = SIDE * SIDE;
    const TilePlace place = triangle_tile(blockIdx.x, (p.size + SIDE - 1) / SIDE);
    const long long first = (long long)blockIdx.z * p.chunks * gridDim.x + blockIdx.x;
    finish_band<SIDE>((const T*)p.slots + first * SLOT, p.chunks, (long long)gridDim.x * SLOT, place, unfold_output<T>(p), shared);
}

#define UNFOLD(name, BLOCKS, ...)                                                                                     \
    extern "C" __global__ void __launch_bounds__((__VA_ARGS__::threads), BLOCKS) name(const ConvUnfoldParams p) {     \
        conv_unfold<__VA_ARGS__>(p);                                                                                  \
    }                                                                                                                 \
    KERNEL(name)
#define FINISH(name, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(BAND_THREADS) name(const ConvUnfoldParams p) {                       \
        conv_unfold_finish<T, 64>(p);                                                                                 \
    }                                                                                                                 \
    KERNEL(name)

UNFOLD(conv_unfold_fma_64_f32, 4, Fma64<float>)
UNFOLD(conv_unfold_fma_64_f64, 2, Fma64<double>)

UNFOLD(conv_unfold_tf32x3_64_f32, 3, Mma64<float, Tf32x3<float>>)
UNFOLD(conv_unfold_mma_64_f64, 2, Mma64<double, F64>)
UNFOLD(conv_unfold_mma_64_bf16, 3, Mma64<bf16, Bf16Promoted<bf16>>)
UNFOLD(conv_unfold_mma_64_f16, 3, Mma64<f16, Tf32x3<f16>>)

// Options
UNFOLD(conv_unfold_tf32_64_f32, 4, Mma64<float, Tf32<float>>)
UNFOLD(conv_unfold_bf16_64_f32, 4, Mma64<float, Bf16<float>>)

FINISH(conv_unfold_finish_64_f32, float)
FINISH(conv_unfold_finish_64_f64, double)
