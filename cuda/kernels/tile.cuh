// The tile product: `sum[i][j] = sum over k of left[k][i] right[k][j]` for a square tile, in registers of the block's threads.
//
//     Tile tile;                                                 FmaTile or MmaTile below
//     tile.clear();
//     multiply(tile, left, right, same, depth, shared);          loaders of load.cuh; Tile::stages_bytes of shared memory
//     tile.for_each(f)                                           f(row, column, value), or epilogue.cuh
//
// A tile has Stage (the type in shared memory) and Value (of its sums), side, threads, depth (of a stage), stages, lead (elements from a depth of a
// stage to the next), clear, step (one stage) and for_each.
#pragma once
#include "load.cuh"

template <class T, int SIDE_, int THREADS_, int STAGES_> struct Shape {
    using Stage = T;
    using Value = typename Widened<T>::Type;
    static constexpr int side = SIDE_, threads = THREADS_, stages = STAGES_, depth = 16;
    // Padded by 32 bytes, 16 for half-width elements: the lanes of a fragment (8 neighbours at each of 4 depths) then lie in different banks, and
    // 16-byte copies stay aligned.
    static constexpr int lead = side + (sizeof(T) == 8 ? 4 : 8);
    static constexpr int stages_bytes = stages * 2 * depth * lead * (int)sizeof(T);
};

// Stages are loaded `stages - 1` ahead of the one that is multiplied. `same`: the right operand is the left one, and is not loaded.
template <class Tile, class Left, class Right>
__device__ __forceinline__ void multiply(Tile& tile, const Left& left, const Right& right, bool same, int depth, typename Tile::Stage* shared) {
    constexpr int OPERAND = Tile::depth * Tile::lead, AHEAD = Tile::stages - 1;
    const int steps = (depth + Tile::depth - 1) / Tile::depth;
#pragma unroll 1
    for (int step = -AHEAD; step < steps; step++) {
        if (step >= 0) {
            cp_async_wait<AHEAD - 1>();
            __syncthreads(); // This step's stage has arrived for all threads, and all are done with the one before, which is filled next.
        }
        const int next = step + AHEAD;
        if (next < steps) {
            typename Tile::Stage* stage = shared + next % Tile::stages * (2 * OPERAND);
            left.template load<Tile>(stage, next * Tile::depth);
            if (!same) {
                right.template load<Tile>(stage + OPERAND, next * Tile::depth);
            }
        }
        cp_async_commit();
        if (step >= 0) {
            const typename Tile::Stage* stage = shared + step % Tile::stages * (2 * OPERAND);
            tile.step(stage, same ? stage : stage + OPERAND);
        }
    }
    cp_async_wait<0>();
    __syncthreads(); // The shared memory is free.
}

// Reads N neighbours at once, widened.
template <int N, class T> __device__ __forceinline__ void read_widened(typename Widened<T>::Type* to, const T* from) {
    struct alignas(N * sizeof(T)) Vector {
        T at[N];
    };
    const Vector vector = *reinterpret_cast<const Vector*>(from);
#pragma unroll
    for (int e = 0; e < N; e++) {
        to[e] = widen(vector.at[e]);
    }
}

// Fused multiply-adds. A thread has ROWS x COLUMNS sums, in squares of GROUP; a warp is 4 x 8 threads.
template <class T, int SIDE, int ROWS, int COLUMNS, int STAGES>
struct FmaTile : Shape<T, SIDE, SIDE / ROWS * (SIDE / COLUMNS), STAGES> {
    using S = Shape<T, SIDE, SIDE / ROWS * (SIDE / COLUMNS), STAGES>;
    using Value = typename S::Value;
    static constexpr int GROUP = 16 / sizeof(Value), WARPS_ACROSS = SIDE / (8 * COLUMNS);
    Value sum[ROWS][COLUMNS];

    __device__ __forceinline__ static int first_row() {
        return (int)threadIdx.x / 32 / WARPS_ACROSS * (4 * ROWS) + (int)threadIdx.x % 32 / 8 * GROUP;
    }
    __device__ __forceinline__ static int first_column() {
        return (int)threadIdx.x / 32 % WARPS_ACROSS * (8 * COLUMNS) + (int)threadIdx.x % 8 * GROUP;
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                sum[i][j] = 0;
            }
        }
    }

    __device__ __forceinline__ void step(const T* left, const T* right) {
        left += first_row(), right += first_column();
#pragma unroll
        for (int k = 0; k < S::depth; k++) {
            Value a[ROWS], b[COLUMNS];
#pragma unroll
            for (int g = 0; g < ROWS; g += GROUP) {
                read_widened<GROUP>(a + g, left + k * S::lead + 4 * g);
            }
#pragma unroll
            for (int g = 0; g < COLUMNS; g += GROUP) {
                read_widened<GROUP>(b + g, right + k * S::lead + 8 * g);
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    sum[i][j] = fma(a[i], b[j], sum[i][j]);
                }
            }
        }
    }

    template <class F> __device__ __forceinline__ void for_each(F&& f) const {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                f(first_row() + i / GROUP * (4 * GROUP) + i % GROUP, first_column() + j / GROUP * (8 * GROUP) + j % GROUP, sum[i][j]);
            }
        }
    }
};

// What a warp's matrix instruction multiplies, for MmaTile. `at` is the stage's entry (t, g) of the fragment's corner, lane = 4 g + t. The order of
// depths is free as long as both operands agree: a lane reads depths t, t + 4, .., which lie in different banks.

// f32 rounded to TF32 (11 bits); half-width inputs are exact in it.
__device__ __forceinline__ uint32_t tf32(float x) { return to_tf32(x); }
__device__ __forceinline__ uint32_t tf32(bf16 x) { return __float_as_uint(widen(x)); }
__device__ __forceinline__ uint32_t tf32(f16 x) { return __float_as_uint(widen(x)); }

template <class T> struct Tf32 {
    static constexpr int rows = 16, depth = 8, values = 4, terms = 1;
    static constexpr bool promoted = false;
    struct Left {
        uint32_t a[4];
        __device__ __forceinline__ void read(const T* at, int lead) {
            a[0] = tf32(at[0]), a[1] = tf32(at[8]), a[2] = tf32(at[4 * lead]), a[3] = tf32(at[4 * lead + 8]);
        }
    };
    struct Right {
        uint32_t b[2];
        __device__ __forceinline__ void read(const T* at, int lead) { b[0] = tf32(at[0]), b[1] = tf32(at[4 * lead]); }
    };
    __device__ __forceinline__ static void multiply(int, float (&d)[4], const Left& l, const Right& r) { mma_tf32(d, l.a, r.b); }
};

// f32 accuracy: x = hi + lo up to 2^-23 |x|, both TF32; lo lo, of 2^-22 |x y|, is left out. Tensor cores may truncate as they add, so no chain runs
// in them: each product starts from zero and is added to the sum in f32. Half-width inputs have no lo.
template <class T> struct Tf32x3 : Tf32<T> {
    static constexpr bool promoted = true;
};
template <> struct Tf32x3<float> {
    static constexpr int rows = 16, depth = 8, values = 4, terms = 3;
    static constexpr bool promoted = true;
    __device__ __forceinline__ static void split(float x, uint32_t& hi, uint32_t& lo) {
        hi = to_tf32(x);
        lo = to_tf32(x - __uint_as_float(hi));
    }
    struct Left {
        uint32_t hi[4], lo[4];
        __device__ __forceinline__ void read(const float* at, int lead) {
            split(at[0], hi[0], lo[0]), split(at[8], hi[1], lo[1]);
            split(at[4 * lead], hi[2], lo[2]), split(at[4 * lead + 8], hi[3], lo[3]);
        }
    };
    struct Right {
        uint32_t hi[2], lo[2];
        __device__ __forceinline__ void read(const float* at, int lead) { split(at[0], hi[0], lo[0]), split(at[4 * lead], hi[1], lo[1]); }
    };
    __device__ __forceinline__ static void multiply(int term, float (&d)[4], const Left& l, const Right& r) {
        if (term == 0) {
            mma_tf32(d, l.lo, r.hi);
        } else if (term == 1) {
            mma_tf32(d, l.hi, r.lo);
        } else {
            mma_tf32(d, l.hi, r.hi);
        }
    }
};

// Rounded to bf16 (8 bits); bf16 inputs are exact, and their sums promoted as those of Tf32x3.
__device__ __forceinline__ uint32_t bf16_pair(float a, float b) { return pack_bf16(a, b); }
__device__ __forceinline__ uint32_t bf16_pair(bf16 a, bf16 b) { return a.bits | (uint32_t)b.bits << 16; }
__device__ __forceinline__ uint32_t bf16_pair(f16 a, f16 b) { return pack_bf16(widen(a), widen(b)); }

template <class T> struct Bf16 {
    static constexpr int rows = 16, depth = 16, values = 4, terms = 1;
    static constexpr bool promoted = false;
    struct Left {
        uint32_t a[4];
        __device__ __forceinline__ void read(const T* at, int lead) {
            a[0] = bf16_pair(at[0], at[4 * lead]), a[1] = bf16_pair(at[8], at[4 * lead + 8]);
            a[2] = bf16_pair(at[8 * lead], at[12 * lead]), a[3] = bf16_pair(at[8 * lead + 8], at[12 * lead + 8]);
        }
    };
    struct Right {
        uint32_t b[2];
        __device__ __forceinline__ void read(const T* at, int lead) {
            b[0] = bf16_pair(at[0], at[4 * lead]), b[1] = bf16_pair(at[8 * lead], at[12 * lead]);
        }
    };
    __device__ __forceinline__ static void multiply(int, float (&d)[4], const Left& l, const Right& r) { mma_bf16(d, l.a, r.b); }
};
template <class T> struct Bf16Promoted : Bf16<T> {
    static constexpr bool promoted = true;
};

// f64 tensor cores round each multiply-add as IEEE 754 has it.
struct F64 {
    static constexpr int rows = 8, depth = 4, values = 2, terms = 1;
    static constexpr bool promoted = false;
    struct Left {
        double a;
        __device__ __forceinline__ void read(const double* at, int) { a = at[0]; }
    };
    using Right = Left;
    __device__ __forceinline__ static void multiply(int, double (&d)[2], const Left& l, const Right& r) { mma_f64(d, l.a, r.a); }
};

// Matrix instructions: DOWN x ACROSS warps, each with SIDE / DOWN x SIDE / ACROSS sums.
template <class T, class Math, int SIDE, int DOWN, int ACROSS, int STAGES> struct MmaTile : Shape<T, SIDE, 32 * DOWN * ACROSS, STAGES> {
    using S = Shape<T, SIDE, 32 * DOWN * ACROSS, STAGES>;
    using Value = typename S::Value;
    static constexpr int ROWS = SIDE / DOWN / Math::rows, COLUMNS = SIDE / ACROSS / 8;
    Value sum[COLUMNS][ROWS][Math::values];

    __device__ __forceinline__ static int warp_row() { return (int)threadIdx.x / 32 / ACROSS * (SIDE / DOWN); }
    __device__ __forceinline__ static int warp_column() { return (int)threadIdx.x / 32 % ACROSS * (SIDE / ACROSS); }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
#pragma unroll
                for (int e = 0; e < Math::values; e++) {
                    sum[j][i][e] = 0;
                }
            }
        }
    }

    // Term by term, so that an instruction does not wait for the one before.
    __device__ __forceinline__ static void multiply_column(Value (&d)[ROWS][Math::values], const typename Math::Left (&a)[ROWS], const typename Math::Right& b) {
#pragma unroll
        for (int term = 0; term < Math::terms; term++) {
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                Math::multiply(term, d[i], a[i], b);
            }
        }
    }

    __device__ __forceinline__ void step(const T* left, const T* right) {
        const int corner = (int)threadIdx.x % 4 * S::lead + (int)threadIdx.x % 32 / 4;
        left += corner + warp_row(), right += corner + warp_column();
#pragma unroll
        for (int k = 0; k < S::depth; k += Math::depth) {
            typename Math::Left a[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                a[i].read(left + k * S::lead + i * Math::rows, S::lead);
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                typename Math::Right b;
                b.read(right + k * S::lead + j * 8, S::lead);
if constexpr (Math::promoted) {
                    Value product[ROWS][Math::values] = {};
                    multiply_column(product, a, b);
#pragma unroll
                    for (int i = 0; i < ROWS; i++) {
#pragma unroll
                        for (int e = 0; e < Math::values; e++) {
                            sum[j][i][e] += product[i][e];
                        }
                    }
                } else {
                    multiply_column(sum[j], a, b);
                }
            }
        }
    }

    template <class F> __device__ __forceinline__ void for_each(F&& f) const {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
#pragma unroll
                for (int e = 0; e < Math::values; e++) {
                    f(warp_row() + i * Math::rows + g + e / 2 * 8, warp_column() + j * 8 + 2 * t + e % 2, sum[j][i][e]);
                }
            }
        }
    }
};

// The sizes in use: 128 where there are many tiles, 64 for small or deep products.
template <class T> using Fma128 = FmaTile<T, 128, 8, 8, 3>;
template <class T> using Fma64 = FmaTile<T, 64, 8, 4, sizeof(T) == 8 ? 3 : 4>;
template <class T, class Math> using Mma128 = MmaTile<T, Math, 128, 2, 4, 3>;
template <class T, class Math> using Mma64 = MmaTile<T, Math, 64, 2, 2, sizeof(T) == 8 ? 3 : 4>;
