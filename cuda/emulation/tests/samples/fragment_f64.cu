// D = A B of 8 x 4 by 4 x 8, in double.
#include "params.cuh"

extern "C" __global__ void __launch_bounds__(32) fragment_f64(const Params p) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const float *a = p.x, *b = p.x + 32;
    double d[2] = {0.0, 0.0};
    mma_f64(d, a[g * 4 + t], b[t * 8 + g]);
    for (int e = 0; e < 2; e++) p.y[g * 8 + 2 * t + e] = float(d[e]);
}
KERNEL(fragment_f64)
