// One kernel for each thing that the emulation must get right. ../check.cpp compares them with plain C++; ../faults.txt breaks them.
#include "prelude.cuh"

struct Params {
    const float* x;
    float* y;
    int n, depth;
};
static_assert(sizeof(Params) == 24, "");

constexpr int TILE = 8;

// Y = X X^T, X n x depth, by tiles: both barriers are needed, and all four bounds.
extern "C" __global__ void __launch_bounds__(TILE* TILE) tiles(const Params p) {
    SHARED(float, left);
    float* right = left + TILE * TILE;
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * TILE + ty, column = blockIdx.x * TILE + tx;
    float sum = 0.0f;
    for (int first = 0; first < p.depth; first += TILE) {
        bool inside = first + tx < p.depth;
        left[ty * TILE + tx] = row < p.n && inside ? p.x[row * p.depth + first + tx] : 0.0f;
        int other = blockIdx.x * TILE + ty;
        right[ty * TILE + tx] = other < p.n && inside ? p.x[other * p.depth + first + tx] : 0.0f;
        __syncthreads(); // the tiles are there
        for (int k = 0; k < TILE; k++) sum = fmaf(left[ty * TILE + k], right[tx * TILE + k], sum);
        __syncthreads(); // and may go
    }
    if (row < p.n && column < p.n) p.y[row * p.n + column] = sum;
}
KERNEL(tiles)

constexpr int STAGES = 3, WIDTH = 64;

// Y = sum of the rows of X, depth rows of WIDTH, each reversed, through a pipeline of asynchronous copies.
extern "C" __global__ void __launch_bounds__(WIDTH / 4) pipeline(const Params p) {
    SHARED(float, stages);
    int t = threadIdx.x;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int row = 0; row < STAGES - 1; row++) {
        if (row < p.depth) cp_async16(&stages[row % STAGES * WIDTH + 4 * t], &p.x[row * WIDTH + 4 * t]);
        cp_async_commit();
    }
    for (int row = 0; row < p.depth; row++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); // the row is there for all, and all are done with the row before
        int next = row + STAGES - 1;
        if (next < p.depth) cp_async16(&stages[next % STAGES * WIDTH + 4 * t], &p.x[next * WIDTH + 4 * t]);
        cp_async_commit(); // an empty group too, so that the count is right at the end
        for (int q = 0; q < 4; q++) sum[q] += stages[row % STAGES * WIDTH + WIDTH - 1 - (4 * t + q)];
    }
    for (int q = 0; q < 4; q++) p.y[4 * t + q] = sum[q];
}
KERNEL(pipeline)

// Copies of 16, 8 and 4 bytes of which only the first n floats are read.
extern "C" __global__ void __launch_bounds__(1) zero_fill(const Params p) {
    SHARED(float, s);
    cp_async16(s, p.x, 4 * p.n);
    cp_async8(s + 4, p.x, 4 * min(p.n, 2));
    cp_async4(s + 6, p.x, 4 * min(p.n, 1));
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = 0; i < 7; i++) p.y[i] = s[i];
}
KERNEL(zero_fill)

// The four shuffles by lanes of segments of n, and the votes: six rows of 32.
extern "C" __global__ void __launch_bounds__(32) shuffles(const Params p) {
    const unsigned all = 0xffffffffu;
    int l = threadIdx.x;
    float x = p.x[l];
    p.y[l] = __shfl_sync(all, x, p.depth, p.n);
    p.y[32 + l] = __shfl_up_sync(all, x, p.depth, p.n);
    p.y[64 + l] = __shfl_down_sync(all, x, p.depth, p.n);
    p.y[96 + l] = __shfl_xor_sync(all, x, p.depth, p.n);
    unsigned ballot = __ballot_sync(all, x > 0.0f);
    p.y[128 + l] = ballot >> l & 1 ? 1.0f : 0.0f;
    p.y[160 + l] = (__any_sync(all, l == 7) ? 1.0f : 0.0f) + (__all_sync(all, l < 31) ? 2.0f : 0.0f) + (__all_sync(all, l < 32) ? 4.0f : 0.0f);
}
KERNEL(shuffles)

// Two halves of a warp at shuffles of their own, in any order.
extern "C" __global__ void __launch_bounds__(32) halves(const Params p) {
    int l = threadIdx.x;
    float x = p.x[l];
    if (l < 16) {
        for (int i = 8; i > 0; i /= 2) x += __shfl_xor_sync(0x0000ffffu, x, i);
    } else {
        x *= __shfl_xor_sync(0xffff0000u, x, 1);
    }
    __syncwarp();
    p.y[l] = x;
}
KERNEL(halves)

// D = A B of 16 x 8 by 8 x 8; A then B in X.
extern "C" __global__ void __launch_bounds__(32) fragment_tf32(const Params p) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const float *a = p.x, *b = p.x + 128;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t left[4], right[2];
    for (int r = 0; r < 4; r++) left[r] = to_tf32(a[(g + r % 2 * 8) * 8 + t + r / 2 * 4]);
    for (int r = 0; r < 2; r++) right[r] = to_tf32(b[(t + r * 4) * 8 + g]);
    mma_tf32(d, left, right);
    for (int e = 0; e < 4; e++) p.y[(g + e / 2 * 8) * 8 + 2 * t + e % 2] = d[e];
}
KERNEL(fragment_tf32)

// D = A B of 16 x 16 by 16 x 8.
extern "C" __global__ void __launch_bounds__(32) fragment_bf16(const Params p) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const float *a = p.x, *b = p.x + 256;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t left[4], right[2];
    for (int r = 0; r < 4; r++) {
        const float* pair = a + (g + r % 2 * 8) * 16 + 2 * t + r / 2 * 8;
        left[r] = pack_bf16(pair[0], pair[1]);
    }
    for (int r = 0; r < 2; r++) right[r] = pack_bf16(b[(2 * t + r * 8) * 8 + g], b[(2 * t + r * 8 + 1) * 8 + g]);
    mma_bf16(d, left, right);
    for (int e = 0; e < 4; e++) p.y[(g + e / 2 * 8) * 8 + 2 * t + e % 2] = d[e];
}
KERNEL(fragment_bf16)

// D = A B of 8 x 4 by 4 x 8, in double.
extern "C" __global__ void __launch_bounds__(32) fragment_f64(const Params p) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const float *a = p.x, *b = p.x + 32;
    double d[2] = {0.0, 0.0};
    mma_f64(d, a[g * 4 + t], b[t * 8 + g]);
    for (int e = 0; e < 2; e++) p.y[g * 8 + 2 * t + e] = float(d[e]);
}
KERNEL(fragment_f64)

// Y = the number of X that are positive, of n: threads past n exit before the barrier, as CUDA allows.
extern "C" __global__ void __launch_bounds__(96) early_exit(const Params p) {
    int i = threadIdx.x;
    if (i >= p.n) return;
    int positive = __syncthreads_count(p.x[i] > 0.0f);
    __syncwarp();
    float last = __shfl_sync(0xffffffffu, p.x[i], 0);
    p.y[i] = float(positive) + last;
}
KERNEL(early_exit)

// Y = sum over blocks, each for itself: a partial sum by warps, in shared memory.
extern "C" __global__ void __launch_bounds__(64) sums(const Params p) {
    SHARED(float, partial);
    int i = blockIdx.x * 64 + threadIdx.x;
    float sum = i < p.n ? p.x[i] : 0.0f;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_down_sync(0xffffffffu, sum, o);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads(); // the partial sums are there
    if (threadIdx.x == 0) p.y[blockIdx.x] = partial[0] + partial[1];
}
KERNEL(sums)
