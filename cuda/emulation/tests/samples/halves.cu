// Two halves of a warp at shuffles of their own, in any order.
#include "params.cuh"

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
