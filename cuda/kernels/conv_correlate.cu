// The sums of the correlation form: for each class of tap pairs and each triple of segments, products of shifted images over positions.
//
//     partial[class i, channel c][class j, channel c']  =  sum over positions  X_left[.., y - i, x, c]  X_right[.., y, x + j, c']
//
// Images are pixel-major: a position is a run of channels, and a shift, also to another class, moves the pointer. One block takes one item: a tile of a
// sum, over the positions of a chunk.
#include "conv.cuh"

struct ConvCorrelateParams {
    const void* images;    // of 16-byte vectors of channels
    const ConvSum* sums;
    const ConvItem* items;
    void* partials;
    long long group_step;  // elements of the images
    long long phase_step;
    long long image_step;
    long long partials_step; // elements of a group's partial sums
    int steps[3];          // along z, y, x
    int width;             // channels of a class
};
static_assert(sizeof(ConvCorrelateParams) == 80, "as in Rust");

// One side's columns of a tile at an item's positions.
template <class T> struct ShiftedPixels {
    const T* base;       // this thread's vector at the item's first image, position 0
    const ConvSum& sum;
    const ConvCorrelateParams& p;
    unsigned first;
    int count;
    bool inside;         // whether this thread's vector is one of the sum's

    template <class Tile> __device__ __forceinline__ void load(T* stage, int from) const {
        constexpr int LENGTH = 16 / sizeof(T), ROW = Tile::side / LENGTH;
        static_assert(Tile::threads % ROW == 0, "a thread has one vector of each depth");
        const int i = threadIdx.x % ROW * LENGTH;
#pragma unroll
        for (int k = threadIdx.x / ROW; k < Tile::depth; k += Tile::threads / ROW) {
            const unsigned position = first + from + k;
            const unsigned line = sum.lengths[2].divide(position), x = position - line * sum.lengths[2].divisor;
            const unsigned plane = sum.lengths[1].divide(line), y = line - plane * sum.lengths[1].divisor;
            const unsigned image = sum.lengths[0].divide(plane), z = plane - image * sum.lengths[0].divisor;
            const bool exists = inside && from + k < count;
            const T* at = base + image * p.image_step + ((int)z * p.steps[0] + (int)y * p.steps[1] + (int)x * p.steps[2]);
            cp_async16(stage + k * Tile::lead + i, exists ? at : base, exists ? 16 : 0);
        }
    }
};

enum { LEFT, RIGHT };

template <class Tile> __device__ __forceinline__ void conv_correlate(const ConvCorrelateParams& p) {
    using T = typename Tile::Stage;
    using Value = typename Tile::Value;
    SHARED(unsigned char, shared);
    const ConvItem item = p.items[blockIdx.x];
    const ConvSum sum = p.sums[item.sum];
    auto pixels = [&](int side) {
        constexpr int LENGTH = 16 / sizeof(T), ROW = Tile::side / LENGTH;
        const int at = (int)item.tile[side] * Tile::side + (int)(threadIdx.x % ROW) * LENGTH;
        const int* sample = side == LEFT ? sum.left : sum.right;
        const int row_class = at / p.width, channel = at % p.width;
        const int shift = side == LEFT ? -row_class * p.steps[1] : row_class * p.steps[2];
        const bool inside = at < (int)sum.size[side];
        const int place = sample[0] * p.steps[0] + sample[1] * p.steps[1] + sample[2] * p.steps[2] + channel + shift;
        const T* base = (const T*)p.images + blockIdx.y * p.group_step + sum.phases[side] * p.phase_step + item.image * p.image_step;
        return ShiftedPixels<T>{inside ? base + place : (const T*)p.images, sum, p, item.first, (int)item.count, inside};
    };
    const bool same = sum.tile_columns == 0 && item.tile[LEFT] == item.tile[RIGHT];
    Tile tile;
    tile.clear();
    multiply(tile, pixels(LEFT), pixels(RIGHT), same, (int)item.count, (T*)shared);
    Value* finished = (Value*)shared;
    to_shared(tile, finished);
    to_slot<Tile>(finished, (Value*)p.partials + blockIdx.y * p.partials_step + (long long)item.partial * (Tile::side * Tile::side));
}

// grid: items, groups; as many threads as the tile has.
#define CORRELATE(name, BLOCKS, ...)                                                                                     \
    extern "C" __global__ void __launch_bounds__((__VA_ARGS__::threads), BLOCKS) name(const ConvCorrelateParams p) {     \
        conv_correlate<__VA_ARGS__>(p);                                                                                  \
    }                                                                                                                    \
    KERNEL(name)

CORRELATE(conv_correlate_fma_128_f32, 2, Fma128<float>)
CORRELATE(conv_correlate_fma_64_f32, 4, Fma64<float>)
CORRELATE(conv_correlate_fma_64_f64, 2, Fma64<double>)

CORRELATE(conv_correlate_tf32x3_128_f32, 1, Mma128<float, Tf32x3<float>>)
CORRELATE(conv_correlate_tf32x3_64_f32, 3, Mma64<float, Tf32x3<float>>)
CORRELATE(conv_correlate_mma_64_f64, 2, Mma64<double, F64>)
CORRELATE(conv_correlate_mma_128_bf16, 1, Mma128<bf16, Bf16Promoted<bf16>>)
CORRELATE(conv_correlate_mma_64_bf16, 3, Mma64<bf16, Bf16Promoted<bf16>>)
CORRELATE(conv_correlate_mma_128_f16, 1, Mma128<f16, Tf32x3<f16>>)
CORRELATE(conv_correlate_mma_64_f16, 3, Mma64<f16, Tf32x3<f16>>)

// Options
CORRELATE(conv_correlate_tf32_128_f32, 2, Mma128<float, Tf32<float>>)
CORRELATE(conv_correlate_tf32_64_f32, 4, Mma64<float, Tf32<float>>)
CORRELATE(conv_correlate_bf16_128_f32, 2, Mma128<float, Bf16<float>>)
CORRELATE(conv_correlate_bf16_64_f32, 4, Mma64<float, Bf16<float>>)
