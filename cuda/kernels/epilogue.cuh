// Epilogues: what happens to a finished tile. It goes through shared memory, [side][side + 1], so that whatever way its registers are spread, global memory
// is read and written along its lines; columns of an odd lead lie in different banks.
#pragma once
#include "tile.cuh"

template <class Tile> constexpr int finished_lead = Tile::side + 1;
// Shared memory of a kernel that multiplies a tile and then finishes it.
template <class Tile>
constexpr int tile_bytes = Tile::stages_bytes > Tile::side * finished_lead<Tile> * (int)sizeof(typename Tile::Value)
                               ? Tile::stages_bytes
                               : Tile::side * finished_lead<Tile> * (int)sizeof(typename Tile::Value);

// The tile to shared memory, seen by all threads.
template <class Tile> __device__ __forceinline__ void to_shared(const Tile& tile, typename Tile::Value* shared) {
    tile.for_each([&](int row, int column, typename Tile::Value value) { shared[row * finished_lead<Tile> + column] = value; });
    __syncthreads();
}

// A finished tile from shared memory to a [side][side] slot of scratch.
template <class Tile> __device__ __forceinline__ void to_slot(const typename Tile::Value* shared, typename Tile::Value* slot) {
    for (int p = threadIdx.x; p < Tile::side * Tile::side; p += Tile::threads) {
        slot[p] = shared[p / Tile::side * finished_lead<Tile> + p % Tile::side];
    }
}

// The sum of `count` slots, `step` elements apart, in their order; to shared memory, seen by all threads.
template <class Tile>
__device__ __forceinline__ void sum_slots(const typename Tile::Value* slot, int count, long long step, typename Tile::Value* shared) {
    for (int p = threadIdx.x; p < Tile::side * Tile::side; p += Tile::threads) {
        typename Tile::Value sum = slot[p];
        for (int c = 1; c < count; c++) {
            sum += slot[c * step + p];
        }
        shared[p / Tile::side * finished_lead<Tile> + p % Tile::side] = sum;
    }
    __syncthreads();
}

// `alpha x + beta old`, rounded as on the CPU. With `beta = 0` the old value is not read: it may be NaN.
template <class T> __device__ __forceinline__ T blended(T x, const T* old, T alpha, T beta) { return beta == 0 ? alpha * x : fma(alpha, x, beta * *old); }

// A symmetric matrix of `size` rows: its lower triangle is blended with, and mirrored if `full`.
template <class T> struct Symmetric {
    T* at;
    long long row_step, column_step;
    T alpha, beta;
    int size;
    bool full;

    __device__ __forceinline__ T* entry(int row, int column) const { return at + row * row_step + column * column_step; }
};

// Blends a finished tile, of rows from `row` and columns from `column`, into what of it lies on or below the diagonal.
template <class Tile>
__device__ __forceinline__ void blend_symmetric(typename Tile::Value* shared, const Symmetric<typename Tile::Value>& out, int row, int column) {
    using T = typename Tile::Value;
    const bool down = out.row_step == 1; // The output's columns are contiguous: neighbouring threads take neighbouring rows.
    for (int p = threadIdx.x; p < Tile::side * Tile::side; p += Tile::threads) {
        const int i = down ? p % Tile::side : p / Tile::side, j = down ? p / Tile::side : p % Tile::side;
        if (row + i < out.size && column + j <= row + i) {
            T* entry = out.entry(row + i, column + j);
            T& finished = shared[i * finished_lead<Tile> + j];
            finished = blended(finished, entry, out.alpha, out.beta);
            *entry = finished;
        }
    }
    if (out.full) {
        __syncthreads();
        for (int p = threadIdx.x; p < Tile::side * Tile::side; p += Tile::threads) {
            const int i = down ? p / Tile::side : p % Tile::side, j = down ? p % Tile::side : p / Tile::side;
            if (row + i < out.size && column + j < row + i) {
                *out.entry(column + j, row + i) = shared[i * finished_lead<Tile> + j];
            }
        }
    }
}

// Tile `index` of the lower triangle of tiles x tiles. Rows are taken in pairs of constant length, a long and a short one, so that no root is needed.
struct TilePlace {
    int row, column;
};
__device__ __forceinline__ TilePlace triangle_tile(int index, int tiles) {
    const int length = tiles | 1, pair = index / length, place = index % length;
    const int first = tiles - pair;
    return place < first ? TilePlace{first - 1, place} : TilePlace{pair - (tiles & 1), place - first};
}
