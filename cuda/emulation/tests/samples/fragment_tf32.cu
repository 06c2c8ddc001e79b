// D = A B of 16 x 8 by 8 x 8; A then B in X.
#include "params.cuh"

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
