// D = A B of 16 x 16 by 16 x 8.
#include "params.cuh"

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
