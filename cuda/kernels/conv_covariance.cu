// Covariances of a convolution's patches, out_g <- beta out_g + alpha sum over images and outputs of patch patch^T, without unfolding.
//
//   1  conv_covariance_plain_*     one thread for each entry, from the definition: the second oracle
//   2  conv_unfold_*               tiles whose patches are formed while they are loaded: conv_unfold.cu
//   3  the correlation form        each pair of samples is multiplied once: docs/convolution.md
//        conv_pack_*               images, pixel-major, split into phases; not needed where they lie so
//        conv_correlate_*          the sums, tile by tile and chunk by chunk: conv_correlate.cu
//        conv_fold_*               chunks of a tile added, in order
//        conv_assemble_*           blocks of taps from the sums over their windows, blended into the lower triangle
//      conv_window_sums_*, conv_bias_*     what each tap sees of an image, added up: a bias, and mean patches
//      conv_mirror_*               the upper triangle
#include "conv.cuh"

struct ConvPlainParams {
    ConvImages x;
    ConvOutput out;
    ConvGeometry geometry;
    ConvFeatures features;
    int groups;
    int size; // features, and 1 with a bias
    int full;
};
static_assert(sizeof(ConvPlainParams) == 200, "as in Rust");

// grid: groups x size x size entries, 256 threads. Those above the diagonal have nothing to do.
template <class I> __device__ __forceinline__ void conv_plain(const ConvPlainParams& p) {
    using T = typename Widened<I>::Type;
    const long long entry = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int j = (int)(entry % p.size), i = (int)(entry / p.size % p.size), g = (int)(entry / p.size / p.size);
    if (g >= p.groups || j > i) {
        return;
    }
    const int count = p.features.channels * p.features.taps;
    const I* x = (const I*)p.x.data + (long long)g * p.x.channels * p.x.channel;
    auto at = [&](int feature, long long image, long long position) {
        if (feature == count) {
            return (T)1;
        }
        long long offset;
        const ConvTap tap(p.geometry, p.features.tap(feature));
        const bool there = conv_sample(p.geometry, p.x, tap, position, offset);
        return there ? widen(x[image * p.x.image + p.features.channel(feature) * p.x.channel + offset]) : (T)0;
    };
    T sum = 0;
    for (long long image = 0; image < p.x.images; image++) {
        for (long long position = 0; position < p.geometry.positions(); position++) {
            sum = fma(at(i, image, position), at(j, image, position), sum);
        }
    }
    p.out.blend<T>(g, i, j, sum);
    if (p.full && i != j) {
        *p.out.entry<T>(g, j, i) = *p.out.entry<T>(g, i, j);
    }
}

struct ConvPackParams {
    ConvImages x;
    void* packed;         // [group][phase][image][z, y, x][width]
    const int* phases;    // of each phase, its first sample along z, y, x
    ConvGeometry geometry;
    int pitch[3];
    int width;            // channels, and padding
    int phase_count;
    int groups;
};
static_assert(sizeof(ConvPackParams) == 168, "as in Rust");

constexpr int PACKED = 1024; // elements of a block, at most

// A block: some positions by up to 32 channels of one image's phase, read along their lines, written along channels. grid: groups x phases x images x
// blocks of channels x blocks of positions.
template <class Bits> __device__ __forceinline__ void conv_pack(const ConvPackParams& p) {
    SHARED(Bits, shared);
    const int channels = min(p.width, 32), length = PACKED / channels / 32 * 32;
    const long long positions = (long long)p.pitch[0] * p.pitch[1] * p.pitch[2];
    const unsigned lines = (unsigned)((positions + length - 1) / length), slices = (p.width + channels - 1) / channels;
    unsigned rest = blockIdx.x;
    const long long first = (long long)(rest % lines) * length;
    rest /= lines;
    const int channel = (int)(rest % slices) * channels;
    rest /= slices;
    const unsigned image = rest % p.x.images;
    rest /= p.x.images;
    const unsigned phase = rest % p.phase_count, group = rest / p.phase_count;
    const Bits* x = (const Bits*)p.x.data + (long long)group * p.x.channels * p.x.channel + image * p.x.image;
    const bool along_channels = p.x.channel == 1;
    for (int e = threadIdx.x; e < channels * length; e += blockDim.x) {
        const int c = along_channels ? e % channels : e / length, at = along_channels ? e / channels : e % length;
        const long long position = first + at;
        const int place[3] = {(int)(position / p.pitch[2] / p.pitch[1]), (int)(position / p.pitch[2] % p.pitch[1]), (int)(position % p.pitch[2])};
        bool there = position < positions && channel + c < p.x.channels;
        long long offset = (channel + c) * p.x.channel;
        for (int axis = 0; axis < 3; axis++) {
            const int sample = place[axis] * p.geometry.stride[axis] + p.phases[3 * phase + axis];
            there = there && sample < p.geometry.size[axis];
            offset += sample * p.x.axis[axis];
        }
        shared[c * (length + 1) + at] = there ? x[offset] : Bits(0);
    }
    __syncthreads();
    Bits* to = (Bits*)p.packed + (((long long)group * p.phase_count + phase) * p.x.images + image) * positions * p.width;
    for (int e = threadIdx.x; e < channels * length; e += blockDim.x) {
        const int c = e % channels, at = e / channels;
        if (first + at < positions && channel + c < p.width) {
            to[(first + at) * p.width + channel + c] = shared[c * (length + 1) + at];
        }
    }
}

struct ConvFoldParams {
    const ConvFold* folds;
    void* partials;
    long long group_step; // elements
    int elements;         // of a tile
};
static_assert(sizeof(ConvFoldParams) == 32, "as in Rust");

// grid: folds, parts of 1024 elements, groups; 256 threads.
template <class T> __device__ __forceinline__ void conv_fold(const ConvFoldParams& p) {
    const ConvFold fold = p.folds[blockIdx.x];
    T* first = (T*)p.partials + blockIdx.z * p.group_step + (long long)fold.partial * p.elements;
    for (int e = blockIdx.y * 1024 + threadIdx.x; e < min(p.elements, (int)(blockIdx.y + 1) * 1024); e += blockDim.x) {
        T sum = first[e];
#pragma unroll 8
        for (unsigned chunk = 1; chunk < fold.count; chunk++) {
            sum += first[(long long)chunk * p.elements + e];
        }
        first[e] = sum;
    }
}

struct ConvAssembleParams {
    ConvOutput out;
    const ConvSum* sums;
    const ConvPair* pairs; // [tap][tap']
    const void* partials;
    long long group_step;
    ConvFeatures features;
    int side; // of a tile
};
static_assert(sizeof(ConvAssembleParams) == 96, "as in Rust");

constexpr int ASSEMBLED = 32;      // channels by channels
constexpr int ASSEMBLED_TAPS = 8;  // of the columns
constexpr int ASSEMBLED_PLANE = ASSEMBLED * (ASSEMBLED + 1) + 4; // planes of 8 taps, 4 neighbours of each: all 32 banks

// One tap and 32 channels of the rows, 8 taps and 32 channels of the columns. Sums are read along their rows, whichever way round they are needed; the
// output is written along its own. grid: blocks of row channels x of column channels x taps x blocks of taps, groups; 256 threads.
template <class T> __device__ __forceinline__ void conv_assemble(const ConvAssembleParams& p) {
    SHARED(T, shared);
    const int channels = p.features.channels, taps = p.features.taps;
    const int slices = (channels + ASSEMBLED - 1) / ASSEMBLED, blocks = (taps + ASSEMBLED_TAPS - 1) / ASSEMBLED_TAPS;
    unsigned rest = blockIdx.x;
    const int other = (int)(rest % blocks) * ASSEMBLED_TAPS, others = min(ASSEMBLED_TAPS, taps - other);
    rest /= blocks;
    const int tap = (int)(rest % taps);
    rest /= taps;
    const int row = (int)(rest / slices) * ASSEMBLED, column = (int)(rest % slices) * ASSEMBLED;
    // Whether the block has entries on or below the diagonal.
    const int last_row = p.features.feature(min(row + ASSEMBLED, channels) - 1, tap);
    if (p.features.feature(column, other) > last_row) {
        return;
    }
    const T* partials = (const T*)p.partials + blockIdx.y * p.group_step;
    const int tile = p.side * p.side;
    for (int q = 0; q < others; q++) {
        const ConvPair pair = p.pairs[tap * taps + other + q];
        for (int e = threadIdx.x; e < ASSEMBLED * ASSEMBLED; e += blockDim.x) {
            // Neighbouring threads read neighbouring columns of the sums: channels of the columns, or of the rows if they are transposed.
            const int slow = e / ASSEMBLED, fast = e % ASSEMBLED;
            const int c = pair.transposed ? fast : slow, d = pair.transposed ? slow : fast;
            if (row + c >= channels || column + d >= channels || p.features.feature(column + d, other + q) > p.features.feature(row + c, tap)) {
                continue;
            }
            const unsigned i = pair.origin[0] + (pair.transposed ? column + d : row + c);
            const unsigned j = pair.origin[1] + (pair.transposed ? row + c : column + d);
            T value = 0;
            for (unsigned z = 0; z < pair.counts[0]; z++) {
                for (unsigned y = 0; y < pair.counts[1]; y++) {
                    for (unsigned x = 0; x < pair.counts[2]; x++) {
                        const ConvSum& sum = p.sums[pair.first + z * pair.steps[0] + y * pair.steps[1] + x];
                        const unsigned r = i - sum.origin[0], s = j - sum.origin[1];
                        const long long at = (long long)sum.tile(r / p.side, s / p.side) * tile;
                        value += partials[at + r % p.side * p.side + s % p.side];
                    }
                }
            }
            shared[q * ASSEMBLED_PLANE + c * (ASSEMBLED + 1) + d] = value;
        }
    }
    __syncthreads();
    // Columns in the output's order.
    const int columns = others * ASSEMBLED;
    for (int e = threadIdx.x; e < ASSEMBLED * columns; e += blockDim.x) {
        const int c = e / columns, at = e % columns;
        const int q = p.features.taps_first ? at / ASSEMBLED : at % others, d = p.features.taps_first ? at % ASSEMBLED : at / others;
        const int i = p.features.feature(row + c, tap), j = p.features.feature(column + d, other + q);
        if (row + c < channels && column + d < channels && j <= i) {
            p.out.blend<T>(blockIdx.y, i, j, shared[q * ASSEMBLED_PLANE + c * (ASSEMBLED + 1) + d]);
        }
    }
}

struct ConvWindowsParams {
    ConvImages x;
    void* rows; // [image][group][feature]
    double scale;
    ConvGeometry geometry;
    ConvFeatures features;
    int groups;
};
static_assert(sizeof(ConvWindowsParams) == 160, "as in Rust");

// rows[image][group][feature] <- scale sum over outputs, one warp each. grid: groups x images x features / 8, 256 threads.
template <class I> __device__ __forceinline__ void conv_window_sums(const ConvWindowsParams& p) {
    using T = typename Widened<I>::Type;
    const int count = p.features.channels * p.features.taps, lane = threadIdx.x % 32;
    const long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int feature = (int)(row % count);
    const long long group = row / count % p.groups, image = row / count / p.groups;
    if (image >= p.x.images) {
        return;
    }
    const ConvTap tap(p.geometry, p.features.tap(feature));
    const long long channel = group * p.x.channels + p.features.channel(feature);
    const I* x = (const I*)p.x.data + image * p.x.image + channel * p.x.channel;
    T sum = 0;
    for (long long position = lane; position < p.geometry.positions(); position += 32) {
        long long offset;
        if (conv_sample(p.geometry, p.x, tap, position, offset)) {
            sum += widen(x[offset]);
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    }
    if (lane == 0) {
        ((T*)p.rows)[row] = (T)p.scale * sum;
    }
}

struct ConvBiasParams {
    ConvOutput out;
    const void* rows; // [image][group][feature]
    long long outputs; // of all images
    int images;
    int features;
    int groups;
};
static_assert(sizeof(ConvBiasParams) == 80, "as in Rust");

// The last row: sums over all images and outputs, and their number. grid: groups x (features + 1) / 256, 256 threads.
template <class T> __device__ __forceinline__ void conv_bias(const ConvBiasParams& p) {
    const long long entry = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int j = (int)(entry % (p.features + 1));
    const long long group = entry / (p.features + 1);
    if (group >= p.groups) {
        return;
    }
    T sum = j == p.features ? (T)p.outputs : (T)0;
    for (int image = 0; image < p.images && j < p.features; image++) {
        sum += ((const T*)p.rows)[((long long)image * p.groups + group) * p.features + j];
    }
    p.out.blend<T>(group, p.features, j, sum);
}

struct ConvMirrorParams {
    void* data;
    long long group;
    long long row;
    long long column;
    int size;
};
static_assert(sizeof(ConvMirrorParams) == 40, "as in Rust");

// out[j][i] <- out[i][j] for j < i, a square of 32 through shared memory. grid: squares x squares, groups; 256 threads.
template <class T> __device__ __forceinline__ void conv_mirror(const ConvMirrorParams& p) {
    SHARED(T, shared);
    const int squares = (p.size + 31) / 32, row = (int)(blockIdx.x / squares) * 32, column = (int)(blockIdx.x % squares) * 32;
    if (column > row) {
        return;
    }
    T* out = (T*)p.data + blockIdx.y * p.group;
    for (int e = threadIdx.x; e < 1024; e += blockDim.x) {
        const int i = row + e / 32, j = column + e % 32;
        if (i < p.size && j < i) {
            shared[e / 32 * 33 + e % 32] = out[i * p.row + j * p.column];
        }
    }
    __syncthreads();
    for (int e = threadIdx.x; e < 1024; e += blockDim.x) {
        const int i = row + e % 32, j = column + e / 32;
        if (i < p.size && j < i) {
            out[j * p.row + i * p.column] = shared[e % 32 * 33 + e / 32];
        }
    }
}

#define CONV_KERNEL(name, Params, ...)                                                               \
    extern "C" __global__ void __launch_bounds__(256) name(const Params p) { __VA_ARGS__(p); } \
    KERNEL(name)

CONV_KERNEL(conv_covariance_plain_f32, ConvPlainParams, conv_plain<float>)
CONV_KERNEL(conv_covariance_plain_f64, ConvPlainParams, conv_plain<double>)
CONV_KERNEL(conv_covariance_plain_bf16, ConvPlainParams, conv_plain<bf16>)
CONV_KERNEL(conv_covariance_plain_f16, ConvPlainParams, conv_plain<f16>)

// By the bytes of an element, which are copied as they are.
CONV_KERNEL(conv_pack_16, ConvPackParams, conv_pack<uint16_t>)
CONV_KERNEL(conv_pack_32, ConvPackParams, conv_pack<uint32_t>)
CONV_KERNEL(conv_pack_64, ConvPackParams, conv_pack<uint64_t>)

CONV_KERNEL(conv_fold_f32, ConvFoldParams, conv_fold<float>)
CONV_KERNEL(conv_fold_f64, ConvFoldParams, conv_fold<double>)
CONV_KERNEL(conv_assemble_f32, ConvAssembleParams, conv_assemble<float>)
CONV_KERNEL(conv_assemble_f64, ConvAssembleParams, conv_assemble<double>)

CONV_KERNEL(conv_window_sums_f32, ConvWindowsParams, conv_window_sums<float>)
CONV_KERNEL(conv_window_sums_f64, ConvWindowsParams, conv_window_sums<double>)
CONV_KERNEL(conv_window_sums_bf16, ConvWindowsParams, conv_window_sums<bf16>)
CONV_KERNEL(conv_window_sums_f16, ConvWindowsParams, conv_window_sums<f16>)
CONV_KERNEL(conv_bias_f32, ConvBiasParams, conv_bias<float>)
CONV_KERNEL(conv_bias_f64, ConvBiasParams, conv_bias<double>)
CONV_KERNEL(conv_mirror_f32, ConvMirrorParams, conv_mirror<float>)
CONV_KERNEL(conv_mirror_f64, ConvMirrorParams, conv_mirror<double>)
