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

// Blends finished entries, HEIGHT rows from `row` and WIDTH columns from `column`, from shared memory into what of the output's lower triangle they are.
// As many threads as the block has.
template <int HEIGHT, int WIDTH, int THREADS, class T>
__device__ __forceinline__ void blend_symmetric(T* shared, const Symmetric<T>& out, int row, int column) {
    // Neighbouring threads take neighbours in memory.
    auto each = [&](bool along_columns, auto&& f) {
        for (int p = threadIdx.x; p < HEIGHT * WIDTH; p += THREADS) {
            const int i = along_columns ? p % HEIGHT : p / WIDTH, j = along_columns ? p / HEIGHT : p % WIDTH;
            if (row + i < out.size && column + j <= row + i) {
                f(row + i, column + j, shared[i * (WIDTH + 1) + j]);
            }
        }
    };
    const bool columns = out.row_step == 1;
    each(columns, [&](int i, int j, T& finished) {
        T* entry = out.entry(i, j);
        finished = blended(finished, entry, out.alpha, out.beta);
        *entry = finished;
    });
    if (out.full) {
        __syncthreads();
        each(!columns, [&](int i, int j, T& finished) { *out.entry(j, i) = finished; });
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

// The second half of a tile whose depth was split: its slots are added in their order and blended. A block does BAND rows, so that many blocks share one deep
// tile: grid y has SIDE / BAND. `slot` is the tile's first, the others follow `step` elements apart.
constexpr int BAND = 8, BAND_THREADS = 128;
template <class T, int SIDE> constexpr int band_bytes = BAND * (SIDE + 1) * (int)sizeof(T);

template <int SIDE, class T>
__device__ __forceinline__ void finish_band(const T* slot, int count, long long step, TilePlace place, const Symmetric<T>& out, T* shared) {
    constexpr int EACH = BAND * SIDE / BAND_THREADS, AT_ONCE = 8;
    slot += blockIdx.y * (BAND * SIDE) + threadIdx.x;
    T sum[EACH] = {};
    for (int first = 0; first < count; first += AT_ONCE) {
        T next[AT_ONCE][EACH];
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++) { // All loads before the first addition.
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                next[s][e] = first + s < count ? slot[(first + s) * step + e * BAND_THREADS] : 0;
            }
        }
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++) {
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                sum[e] += next[s][e];
            }
        }
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int at = e * BAND_THREADS + threadIdx.x;
        shared[at / SIDE * (SIDE + 1) + at % SIDE] = sum[e];
    }
    __syncthreads();
    blend_symmetric<BAND, SIDE, BAND_THREADS>(shared, out, place.row * SIDE + blockIdx.y * BAND, place.column * SIDE);
}
