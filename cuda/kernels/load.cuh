// Loaders: they fill a stage of shared memory with a few depths of one operand, as packers fill panels on the CPU.
//
// A stage holds [depth][lead] elements of the operand's own type: entry (k, i) is `stage[k * Tile::lead + i]`, for k < Tile::depth and
// i < Tile::side. A loader has
//
//     template <class Tile> void load(typename Tile::Stage* stage, int from) const;      depths from .. from + Tile::depth
//
// which all threads of the block call, and which writes every entry (k, i), zero past the operand's end. It may copy asynchronously (`cp_async`);
// the pipeline of tile.cuh commits and waits.
#pragma once
#include "prelude.cuh"

// Half-width inputs. They stay half as wide in shared memory, and are widened, which is exact, as they are read from there.
struct bf16 {
    unsigned short bits;
};
struct f16 {
    unsigned short bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
__device__ __forceinline__ float widen(f16 x) { return half_to_float(x.bits); }

template <class T> struct Widened { using Type = float; };
template <> struct Widened<double> { using Type = double; };

template <class T> __device__ __forceinline__ T one() { return (T)1; }
template <> __device__ __forceinline__ bf16 one<bf16>() { return bf16{0x3f80}; }
template <> __device__ __forceinline__ f16 one<f16>() { return f16{0x3c00}; }

// Two bytes are too few for an asynchronous copy.
template <class T> __device__ __forceinline__ void copy_element(T* to, const T* from, bool exists) {
    if constexpr (sizeof(T) == 2) {
        *to = exists ? *from : T{0};
    } else if constexpr (sizeof(T) == 4) {
        cp_async4(to, from, exists ? 4 : 0);
    } else {
        cp_async8(to, from, exists ? 8 : 0);
    }
}

// How an operand is read, which the host chooses: single elements, of neighbouring depths or of neighbouring columns, whichever lie closer; or vectors of
// 4 or 16 bytes along contiguous columns, where the operand's address and all steps between depths are multiples of them.
enum Reading { BY_DEPTH = 0, BY_COLUMN = 1, PAIRS = 4, VECTORS = 16 };

// Depth k is row `first + k` of rows `step` apart; or, where `count` is not zero, position `first + k` of datapoints `datapoint` apart that have
// `count` positions each.
struct Rows {
    long long datapoint, step;
    unsigned first, count;

    __device__ __forceinline__ long long at(int k) const {
        const unsigned row = first + (unsigned)k;
        if (count == 0) {
            return row * step;
        }
        return row / count * datapoint + row % count * step;
    }
};

// A tile's columns of a matrix with one row for each depth. `Depths` has `long long at(int k)`: elements from `base` to depth k.
template <class T, class Depths> struct Columns {
    const T* base;        // the tile's first column
    Depths depths;
    long long step;       // elements from a column to the next
    int depth;            // depths that exist
    int columns;          // columns that exist, from the tile's first: less than none, or more than the tile has, alike
    int ones;             // a column of ones, none where it lies outside the tile
    int reading;          // Reading

    template <class Tile> __device__ __forceinline__ void load(T* stage, int from) const {
        if (reading == VECTORS) {
            vectors<Tile, 16>(stage, from);
        } else if (sizeof(T) == 2 && reading == PAIRS) {
            vectors<Tile, 4>(stage, from);
        } else {
            elements<Tile>(stage, from);
        }
    }

  private:
    template <class Tile> __device__ __forceinline__ void element(T* stage, int from, int k, int i) const {
        T* to = stage + k * Tile::lead + i;
        const bool exists = from + k < depth;
        if (i == ones) {
            *to = exists ? one<T>() : T{0};
        } else {
            const bool inside = exists && i < columns;
            copy_element(to, inside ? base + depths.at(from + k) + i * step : base, inside);
        }
    }

    template <class Tile> __device__ __forceinline__ void elements(T* stage, int from) const {
#pragma unroll 1
        for (int p = threadIdx.x; p < Tile::depth * Tile::side; p += Tile::threads) {
            const bool by_depth = reading == BY_DEPTH;
            element<Tile>(stage, from, by_depth ? p % Tile::depth : p / Tile::side, by_depth ? p / Tile::depth : p % Tile::side);
        }
    }

    template <class Tile, int BYTES> __device__ __forceinline__ void vectors(T* stage, int from) const {
        constexpr int LENGTH = BYTES / (int)sizeof(T) > 0 ? BYTES / (int)sizeof(T) : 1, ROW = Tile::side / LENGTH;
        const int with_one = ones >= 0 && ones < Tile::side ? ones / LENGTH * LENGTH : -1;
#pragma unroll 1 // Unrolled, addresses take registers that the tile needs.
        for (int p = threadIdx.x; p < Tile::depth * ROW; p += Tile::threads) {
            const int k = p / ROW, i = p % ROW * LENGTH;
            const int length = from + k < depth ? min(max(columns - i, 0), LENGTH) : 0;
            const T* source = length > 0 ? base + depths.at(from + k) + i : base;
            T* to = stage + k * Tile::lead + i;
            if (i == with_one) {
                continue;
            }
            if constexpr (BYTES == 16) {
                cp_async16(to, source, length * (int)sizeof(T));
            } else {
                cp_async4(to, source, length * (int)sizeof(T));
            }
        }
        if (with_one >= 0) { // The vector that holds a one is stored element by element: no copy that is under way may meet it.
#pragma unroll 1
            for (int p = threadIdx.x; p < Tile::depth * LENGTH; p += Tile::threads) {
                element<Tile>(stage, from, p / LENGTH, with_one + p % LENGTH);
            }
        }
    }
};
