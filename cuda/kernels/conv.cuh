// What a convolution is to the device: its geometry, its images, and the tables of the correlation form. The host's structs are in
// cuda/src/convolution/.
#pragma once
#include "epilogue.cuh"

// Three spatial axes, outermost first.
struct ConvGeometry {
    int size[3];
    int kernel[3];
    int stride[3];
    int dilation[3];
    int padding[3]; // before the first sample
    int outputs[3];

    __device__ int taps() const { return kernel[0] * kernel[1] * kernel[2]; }
    __device__ long long positions() const { return (long long)outputs[0] * outputs[1] * outputs[2]; }
};

// Images [N, C, Z, Y, X] of any strides, groups of `channels`.
struct ConvImages {
    const void* data;
    long long image;
    long long channel;
    long long axis[3];
    int images;
    int channels;
};

// Outputs [groups, size, size] of any strides: out <- beta out + alpha value.
struct ConvOutput {
    void* data;
    long long group;
    long long row;
    long long column;
    double alpha;
    double beta;

    template <class T> __device__ T* entry(long long g, long long i, long long j) const {
        return static_cast<T*>(data) + g * group + i * row + j * column;
    }
    template <class T> __device__ void blend(long long g, long long i, long long j, T value) const {
        T* to = entry<T>(g, i, j);
        *to = blended(value, to, static_cast<T>(alpha), static_cast<T>(beta));
    }
};

// In which order a group's features follow one another.
struct ConvFeatures {
    int channels;
    int taps;
    int taps_first; // 1: (taps, channel); 0: (channel, taps)

    __device__ int feature(int channel, int tap) const { return taps_first ? tap * channels + channel : channel * taps + tap; }
    __device__ int channel(int feature) const { return taps_first ? feature % channels : feature / taps; }
    __device__ int tap(int feature) const { return taps_first ? feature / channels : feature % taps; }
};

// A tap's place along each axis.
struct ConvTap {
    int at[3];

    __device__ ConvTap(const ConvGeometry& g, int tap) {
        at[2] = tap % g.kernel[2];
        at[1] = tap / g.kernel[2] % g.kernel[1];
        at[0] = tap / g.kernel[2] / g.kernel[1];
    }
};

// The sample that output `position` (row-major) of an image reads through a tap: whether it is there, and how far from the image's first.
__device__ inline bool conv_sample(const ConvGeometry& g, const ConvImages& x, const ConvTap& tap, long long position, long long& offset) {
    int at[3];
    at[2] = static_cast<int>(position % g.outputs[2]);
    at[1] = static_cast<int>(position / g.outputs[2] % g.outputs[1]);
    at[0] = static_cast<int>(position / g.outputs[2] / g.outputs[1]);
    offset = 0;
    bool there = true;
    for (int axis = 0; axis < 3; axis++) {
        // Sizes, paddings and reaches are below 2^30 each.
        int sample = g.stride[axis] * at[axis] + g.dilation[axis] * tap.at[axis] - g.padding[axis];
        there = there && sample >= 0 && sample < g.size[axis];
        offset += sample * x.axis[axis];
    }
    return there;
}

// n / divisor for n < 2^31, prepared by the host.
struct Divisor {
    uint32_t divisor;
    uint32_t multiplier;
    uint32_t shift;

    __device__ uint32_t divide(uint32_t n) const {
        uint32_t high = static_cast<uint32_t>((static_cast<unsigned long long>(n) * multiplier) >> 32);
        return (high + n) >> shift;
    }
};

// A sum of the correlation form: one product over one triple of segments.
struct ConvSum {
    Divisor lengths[3];
    int left[3];
    int right[3];
    uint32_t phases[2];
    uint32_t origin[2];
    uint32_t size[2];
    uint32_t partial;
    uint32_t chunks;
    uint32_t tile_columns; // 0: only the lower tiles are there

    // The number of a tile of side `side`'s first partial sum.
    __device__ uint32_t tile(uint32_t row, uint32_t column) const {
        uint32_t before = tile_columns == 0 ? row * (row + 1) / 2 : row * tile_columns;
        return partial + (before + column) * chunks;
    }
};

// What one block computes: one tile of a sum over some positions.
struct ConvItem {
    uint32_t sum;
    uint32_t tile[2];
    uint32_t image;
    uint32_t first;
    uint32_t count;
    uint32_t partial;
};

struct ConvFold {
    uint32_t partial;
    uint32_t count;
};

// The block of two taps: the sums first + z step_z + y step_y + x, or their transpose.
struct ConvPair {
    uint32_t first;
    uint32_t counts[3];
    uint32_t steps[2];
    uint32_t origin[2];
    uint32_t transposed;
};

static_assert(sizeof(ConvGeometry) == 72, "");
static_assert(sizeof(ConvImages) == 56, "");
static_assert(sizeof(ConvOutput) == 48, "");
static_assert(sizeof(ConvSum) == 96, "");
static_assert(sizeof(ConvItem) == 28, "");
static_assert(sizeof(ConvPair) == 36, "");
