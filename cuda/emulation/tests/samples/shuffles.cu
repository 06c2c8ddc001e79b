// The four shuffles by lanes of segments of n, and the votes: six rows of 32.
#include "params.cuh"

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
