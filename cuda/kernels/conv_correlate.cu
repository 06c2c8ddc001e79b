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
    long long partials_step; // elements of a group's partial sums
    int steps[4];          // from an image to the next, and along z, y, x
    int width;             // channels of a class
    int batch;             // images, at most as many as the items are for
};
static_assert(sizeof(ConvCorrelateParams) == 80, "as in Rust");

enum { LEFT, RIGHT };

// Where this thread's positions of a stage lie: both sides read at the same offsets, each from its own base.
template <class Tile> struct Positions {
    using T = typename Tile::Stage;
    static constexpr int LENGTH = 16 / sizeof(T), ROW = Tile::side / LENGTH, APART = Tile::threads / ROW, COUNT = Tile::depth / APART;
    static_assert(Tile::threads % ROW == 0 && Tile::depth % APART == 0, "a thread has one vector of some depths");
    const ConvSum& sum;
    const ConvCorrelateParams& p;
    unsigned first; // of the item
    int count;
    long long offset[COUNT];
    bool exists[COUNT];

    __device__ __forceinline__ static int depth(int e) { return threadIdx.x / ROW + e * APART; }
    __device__ __forceinline__ static int column() { return threadIdx.x % ROW * LENGTH; }

    __device__ __forceinline__ void move_to(int from) {
#pragma unroll
        for (int e = 0; e < COUNT; e++) {
            const unsigned position = first + from + depth(e);
            const unsigned line = sum.lengths[2].divide(position), x = position - line * sum.lengths[2].divisor;
            const unsigned plane = sum.lengths[1].divide(line), y = line - plane * sum.lengths[1].divisor;
            const unsigned image = sum.lengths[0].divide(plane), z = plane - image * sum.lengths[0].divisor;
            offset[e] = (long long)(int)image * p.steps[0] + ((int)z * p.steps[1] + (int)y * p.steps[2] + (int)x * p.steps[3]);
            exists[e] = from + depth(e) < count;
        }
    }
};

// One side's columns of a tile. The left side is loaded first, and moves both.
template <class Tile, int SIDE> struct ShiftedPixels {
    using At = Positions<Tile>;
    const typename Tile::Stage* base; // this thread's vector at the item's first image, position 0
    bool inside;                      // whether it is one of the sum's
    At& at;

    template <class> __device__ __forceinline__ void load(typename Tile::Stage* stage, int from) const {
        if (SIDE == LEFT) {
            at.move_to(from);
        }
#pragma unroll
        for (int e = 0; e < At::COUNT; e++) {
            cp_async16(stage + At::depth(e) * Tile::lead + At::column(), base + at.offset[e], inside && at.exists[e] ? 16 : 0);
        }
    }
};

template <class Tile> __device__ __forceinline__ void conv_correlate(const ConvCorrelateParams& p) {
    using T = typename Tile::Stage;
    using Value = typename Tile::Value;
    SHARED(unsigned char, shared);
    const ConvItem item = p.items[blockIdx.x];
    const ConvSum sum = p.sums[item.sum];
    // Positions of images that are there.
    const long long each = (long long)sum.lengths[0].divisor * sum.lengths[1].divisor * sum.lengths[2].divisor;
    const int count = (int)max(0LL, min((long long)item.count, ((long long)p.batch - item.image) * each - item.first));
    using At = Positions<Tile>;
    At at{sum, p, item.first, count, {}, {}};
    auto base = [&](int side, bool& inside) {
        const int column = (int)item.tile[side] * Tile::side + At::column();
        const int* sample = side == LEFT ? sum.left : sum.right;
        const int number = column / p.width, channel = column % p.width;
        const int shift = side == LEFT ? -number * p.steps[2] : number * p.steps[3];
        inside = column < (int)sum.size[side];
        const int place = sample[0] * p.steps[1] + sample[1] * p.steps[2] + sample[2] * p.steps[3] + channel + shift;
        const T* first = (const T*)p.images + blockIdx.y * p.group_step + sum.phases[side] * p.phase_step;
        return first + ((long long)item.image * p.steps[0] + place);
    };
    bool in_left, in_right;
    const T *left = base(LEFT, in_left), *right = base(RIGHT, in_right);
    const bool same = sum.tile_columns == 0 && item.tile[LEFT] == item.tile[RIGHT];
    Tile tile;
    tile.clear();
    multiply(tile, ShiftedPixels<Tile, LEFT>{left, in_left, at}, ShiftedPixels<Tile, RIGHT>{right, in_right, at}, same, count, (T*)shared);
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
CORRELATE(conv_correlate_bf16_128_f32, 1, Mma128<float, Bf16<float>>)
CORRELATE(conv_correlate_bf16_64_f32, 4, Mma64<float, Bf16<float>>)
