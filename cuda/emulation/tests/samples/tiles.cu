// Y = X X^T, X n x depth, by tiles: both barriers are needed, and all four bounds.
#include "params.cuh"

constexpr int TILE = 8;

extern "C" __global__ void __launch_bounds__(64) tiles(const Params p) {
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
