// Y = sum over blocks, each for itself: a partial sum by warps, in shared memory.
#include "params.cuh"

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
