// Y = sum of the rows of X, depth rows of WIDTH, each reversed, through a pipeline of asynchronous copies.
#include "params.cuh"

constexpr int STAGES = 3, WIDTH = 64;

extern "C" __global__ void __launch_bounds__(16) pipeline(const Params p) {
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
