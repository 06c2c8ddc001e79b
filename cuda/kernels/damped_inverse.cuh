// Damped inverses of a batch of symmetric matrices: X = (scale A + damping I)^-1.
//
//     potrf   A = L L^T     k ascending:   L_ik = A_ik / L_kk,    A_ij -= L_ik L_jk      i, j > k
//     trtri   Y = L^-1      k descending:  Y_ik = -R_ik / L_kk,   R_ij += Y_ik L_kj      i >= k > j,  R_k = 0 first
//     lauum   X = Y^T Y     k ascending:                          X_ij += Y_ki Y_kj      i, j <= k,   X_k = 0 first
//
// Each sweep is n updates of rank one, in place in one triangle. Y is solved for by rows, Y L = I, so that its left residual is small
// (docs/numerics.md). Rungs:
//
//     block       the plain one: a block a matrix, the triangle in shared memory
//     registersN  N the largest order: the triangle in the registers of G x G threads; a step publishes one column and one row
#pragma once
#include "prelude.cuh"

namespace damped_inverse {

// As in pending.rs. `pivot` is 0 where there is no failure, else the failing pivot's row and one; (row, column) is the first entry of the lower
// triangle that is NaN or infinite, or (-1, -1).
struct Record {
    double value;
    int pivot, row, column, reserved;
};
static_assert(sizeof(Record) == 24, "");

struct Strides {
    long long matrix, row, column;
};

template <class T>
struct Params {
    const T* a;
    T* out;
    const T* dampings;  // one a matrix, or null: `damping` for all
    Record* records;    // one a matrix
    unsigned* failures; // how many failed: zero before the launch
    Strides a_strides, out_strides;
    long long dampings_stride;
    double scale, damping; // values of T
    int batch, n;
    int full; // 1: both triangles are written, 0: the lower one
    int unused;
};
static_assert(sizeof(Params<float>) == 128, "");
static_assert(sizeof(Params<double>) == 128, "");

static __device__ __forceinline__ float root(float x) { return sqrtf(x); }
static __device__ __forceinline__ double root(double x) { return sqrt(x); }
static __device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

template <class T>
static __device__ __forceinline__ bool is_finite(T x) {
    return x - x == T(0);
}

// Where row i of a packed triangle begins. Triangular numbers run through all residues of a power of two, so that both the rows and the
// columns of a packed triangle lie in distinct banks.
static __device__ __forceinline__ int row_of(int i) { return i * (i + 1) / 2; }
static __device__ __forceinline__ int packed(int i, int j) { return i >= j ? row_of(i) + j : row_of(j) + i; }

// Calls f(slow, fast) for the entries of an n x n matrix that fall to thread t of `threads`: neighbouring threads get neighbouring `fast`.
template <class F>
static __device__ __forceinline__ void for_each_entry(int n, int t, int threads, F f) {
    const int slow_step = threads / n, fast_step = threads % n;
    int slow = t / n, fast = t % n;
    while (slow < n) {
        f(slow, fast);
        slow += slow_step;
        fast += fast_step;
        if (fast >= n) {
            fast -= n;
            slow++;
        }
    }
}

static __device__ __forceinline__ bool by_columns(const Strides& s) {
    return (s.row < 0 ? -s.row : s.row) < (s.column < 0 ? -s.column : s.column);
}

// triangle <- scale A + damping I
template <class T>
static __device__ __forceinline__ void load(T* triangle, const Params<T>& p, long long matrix, int t, int threads) {
    const T* a = p.a + matrix * p.a_strides.matrix;
    const long long row = p.a_strides.row, column = p.a_strides.column;
    const T scale = T(p.scale);
    const T damping = p.dampings ? p.dampings[matrix * p.dampings_stride] : T(p.damping);
    const bool turned = by_columns(p.a_strides);
    for_each_entry(p.n, t, threads, [&](int slow, int fast) {
        const int i = turned ? fast : slow, j = turned ? slow : fast;
        if (i >= j) triangle[row_of(i) + j] = multiply_add(scale, a[i * row + j * column], i == j ? damping : T(0));
    });
}

// out <- triangle, and its mirror image where both are asked for: the values of an entry and its mirror are one.
template <class T>
static __device__ __forceinline__ void store(const T* triangle, const Params<T>& p, long long matrix, int t, int threads) {
    T* out = p.out + matrix * p.out_strides.matrix;
    const long long row = p.out_strides.row, column = p.out_strides.column;
    const bool turned = by_columns(p.out_strides);
    for_each_entry(p.n, t, threads, [&](int slow, int fast) {
        const int i = turned ? fast : slow, j = turned ? slow : fast;
        if (i >= j || p.full) out[i * row + j * column] = triangle[packed(i, j)];
    });
}

constexpr int NOWHERE = 0x7fffffff;

// The first entry that is not finite among those of thread t, by its place in the packed triangle.
template <class T>
static __device__ __forceinline__ int first_not_finite(const Params<T>& p, long long matrix, int t, int threads) {
    const T* a = p.a + matrix * p.a_strides.matrix;
    int first = NOWHERE;
    for_each_entry(p.n, t, threads, [&](int i, int j) {
        if (j <= i && row_of(i) + j < first && !is_finite(a[i * p.a_strides.row + j * p.a_strides.column])) first = row_of(i) + j;
    });
    return first;
}

// By one thread. NaN and infinity always reach a pivot, so that only a matrix that failed is searched for them: `firsts` holds what each of
// `threads` threads found.
template <class T>
static __device__ void report(const Params<T>& p, long long matrix, int pivot, T value, const int* firsts, int threads) {
    Record record{double(value), pivot, -1, -1, 0};
    if (pivot != 0) {
        int first = NOWHERE;
        for (int t = 0; t < threads; t++) first = firsts[t] < first ? firsts[t] : first;
        if (first != NOWHERE) {
            record.row = 0;
            while (row_of(record.row + 1) <= first) record.row++;
            record.column = first - row_of(record.row);
        }
        atomicAdd(p.failures, 1u);
    }
    p.records[matrix] = record;
}

// --- block: one block a matrix, threads a multiple of 32. Shared memory: the triangle, the pivots' roots, one row; after a failure, an int a
// thread.

// Calls f(i, j) for first <= i < last, from <= j < to(i): a warp a row.
template <class To, class F>
static __device__ __forceinline__ void for_rows(int first, int last, int from, To to, F f) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int i = first + warp; i < last; i += warps)
        for (int j = from + lane; j < to(i); j += 32) f(i, j);
}

template <class T>
static __device__ __forceinline__ void block_rung(const Params<T>& p, T* l) {
    const int n = p.n, t = threadIdx.x, threads = blockDim.x;
    const long long matrix = blockIdx.x;
    T* const roots = l + row_of(n);
    T* const row = roots + n;
    load(l, p, matrix, t, threads);
    __syncthreads();

    for (int k = 0; k < n; k++) { // potrf
        const T pivot = l[row_of(k) + k];
        if (!(pivot > T(0) && is_finite(pivot))) { // of all threads at once: they read the same
            int* const firsts = reinterpret_cast<int*>(l);
            __syncthreads();
            firsts[t] = first_not_finite(p, matrix, t, threads);
            __syncthreads();
            if (t == 0) report(p, matrix, k + 1, pivot, firsts, threads);
            return;
        }
        const T r = root(pivot);
        if (t == 0) roots[k] = r;
        for (int i = k + 1 + t; i < n; i += threads) l[row_of(i) + k] /= r;
        __syncthreads();
        for_rows(k + 1, n, k + 1, [](int i) { return i + 1; }, [&](int i, int j) {
            T& entry = l[row_of(i) + j];
            entry = multiply_add(-l[row_of(i) + k], l[row_of(j) + k], entry);
        });
        __syncthreads();
    }

    for (int k = n - 1; k >= 0; k--) { // trtri
        for (int i = k + t; i < n; i += threads) {
            T& entry = l[row_of(i) + k];
            entry = i == k ? T(1) / roots[k] : -entry / roots[k];
        }
        for (int j = t; j < k; j += threads) row[j] = l[row_of(k) + j];
        __syncthreads();
        for_rows(k, n, 0, [&](int) { return k; }, [&](int i, int j) {
            T& entry = l[row_of(i) + j];
            entry = multiply_add(l[row_of(i) + k], row[j], i == k ? T(0) : entry);
        });
        __syncthreads();
    }

    for (int k = 0; k < n; k++) { // lauum
        for (int j = t; j <= k; j += threads) row[j] = l[row_of(k) + j];
        __syncthreads();
        for_rows(0, k + 1, 0, [](int i) { return i + 1; }, [&](int i, int j) {
            T& entry = l[row_of(i) + j];
            entry = multiply_add(row[i], row[j], i == k ? T(0) : entry);
        });
        __syncthreads();
    }

    store(l, p, matrix, t, threads);
    if (t == 0) report(p, matrix, 0, T(0), nullptr, 0);
}

// --- registers: G x G threads a matrix of at most G A rows. Thread (r, c) holds the entries (r + G a, c + G b), b <= a: all those of the lower
// triangle are among them, and every thread has its share of what is left in each step. What a step publishes is zero outside of its range, so that
// threads need not ask where they are. A matrix that fails goes on with numbers that mean nothing: its neighbours in the block do not wait.
//
// Shared memory of a matrix: first the triangle, then in its place two columns, two rows, the pivots' roots, and the failure.

template <int G>
static __device__ __forceinline__ void synchronize() {
    if constexpr (G * G < 32)
        __syncwarp();
    else
        __syncthreads();
}

template <class T, int G, int A>
struct Grid {
    static constexpr int N = G * A;
    static constexpr int PUBLISHED = 5 * N + 2;

    T x[A][A];
    int n, r, c;
    T *columns, *rows, *roots, *failure;

    // Elements of a matrix: of 8 and 4 more, so that the matrices of a warp lie in different banks.
    static __device__ __forceinline__ int shared(int n) {
        const int triangle = row_of(n);
        return ((triangle > PUBLISHED ? triangle : PUBLISHED) + 7) / 8 * 8 + 4;
    }

    __device__ __forceinline__ Grid(T* memory, int order, int t) : n(order), r(t / G), c(t % G) {
        columns = memory;
        rows = columns + 2 * N;
        roots = rows + 2 * N;
        failure = roots + N;
        // Rows past the end are those of the identity.
#pragma unroll
        for (int a = 0; a < A; a++)
#pragma unroll
            for (int b = 0; b <= a; b++) {
                const int i = r + G * a, j = c + G * b;
                x[a][b] = i < n && j <= i ? memory[row_of(i) + j] : T(i == j);
            }
        synchronize<G>();
        if (t == 0) failure[0] = failure[1] = T(0);
        synchronize<G>();
    }

    __device__ __forceinline__ void potrf() {
#pragma unroll
        for (int kb = 0; kb < A; kb++)
            for (int kc = 0; kc < G && kb * G + kc < n; kc++) {
                const int k = kb * G + kc;
                if (r == kc && c == kc) {
                    const T pivot = x[kb][kb];
                    if (!(pivot > T(0) && is_finite(pivot)) && failure[0] == T(0)) {
                        failure[0] = T(k + 1);
                        failure[1] = pivot;
                    }
                    roots[k] = root(pivot);
                }
                synchronize<G>();
                if (c == kc) {
                    const T pivot = roots[k];
#pragma unroll
                    for (int a = kb; a < A; a++) {
                        const int i = r + G * a;
                        if (i > k) x[a][kb] /= pivot;
                        columns[i] = i > k ? x[a][kb] : T(0);
                    }
                }
                synchronize<G>();
#pragma unroll
                for (int a = kb; a < A; a++)
#pragma unroll
                    for (int b = kb; b <= a; b++)
                        x[a][b] = multiply_add(-columns[r + G * a], columns[c + G * b], x[a][b]);
            }
    }

    __device__ __forceinline__ void trtri() {
        synchronize<G>();
#pragma unroll
        for (int kb = A - 1; kb >= 0; kb--)
            for (int kc = (n - kb * G < G ? n - kb * G : G) - 1; kc >= 0; kc--) {
                const int k = kb * G + kc;
                // Two of each, taken in turns: no thread waits for the readers of the last.
                T* const column = columns + k % 2 * N;
                T* const row = rows + k % 2 * N;
                if (c == kc) {
                    const T pivot = roots[k];
#pragma unroll
                    for (int a = kb; a < A; a++) {
                        const int i = r + G * a;
                        if (i >= k) x[a][kb] = (i == k ? T(1) : -x[a][kb]) / pivot;
                        column[i] = i >= k ? x[a][kb] : T(0);
                    }
                }
                if (r == kc) {
#pragma unroll
                    for (int b = 0; b <= kb; b++) {
                        const int j = c + G * b;
                        row[j] = j < k ? x[kb][b] : T(0);
                        if (j < k) x[kb][b] = T(0);
                    }
                }
                synchronize<G>();
#pragma unroll
                for (int a = kb; a < A; a++)
#pragma unroll
                    for (int b = 0; b <= kb; b++) x[a][b] = multiply_add(column[r + G * a], row[c + G * b], x[a][b]);
            }
    }

    __device__ __forceinline__ void lauum() {
        synchronize<G>();
#pragma unroll
        for (int kb = 0; kb < A; kb++)
            for (int kc = 0; kc < G && kb * G + kc < n; kc++) {
                const int k = kb * G + kc;
                T* const row = rows + k % 2 * N;
                if (r == kc) {
#pragma unroll
                    for (int b = 0; b <= kb; b++) {
                        const int j = c + G * b;
                        row[j] = j <= k ? x[kb][b] : T(0);
                        if (j <= k) x[kb][b] = T(0);
                    }
                }
                synchronize<G>();
#pragma unroll
                for (int a = 0; a <= kb; a++)
#pragma unroll
                    for (int b = 0; b <= a; b++) x[a][b] = multiply_add(row[r + G * a], row[c + G * b], x[a][b]);
            }
    }

    __device__ __forceinline__ void unload(T* triangle) {
#pragma unroll
        for (int a = 0; a < A; a++)
#pragma unroll
            for (int b = 0; b <= a; b++) {
                const int i = r + G * a, j = c + G * b;
                if (i < n && j <= i) triangle[row_of(i) + j] = x[a][b];
            }
    }
};

template <class T, int G, int A>
static __device__ __forceinline__ void registers_rung(const Params<T>& p, T* shared) {
    constexpr int THREADS = G * G;
    const int t = threadIdx.x % THREADS, slot = threadIdx.x / THREADS;
    const long long matrix = (long long)blockIdx.x * (blockDim.x / THREADS) + slot;
    const bool here = matrix < p.batch;
    T* const memory = shared + slot * Grid<T, G, A>::shared(p.n);
    if (here) load(memory, p, matrix, t, THREADS);
    synchronize<G>();
    // Of a warp's matrices one may be past the end of the batch: it takes part, on what it finds, for the others wait for it.
    Grid<T, G, A> grid(memory, p.n, t);
    grid.potrf();
    grid.trtri();
    grid.lauum();
    const int pivot = int(grid.failure[0]);
    const T value = grid.failure[1];
    synchronize<G>();
    int* const firsts = reinterpret_cast<int*>(memory);
    if (pivot == 0)
        grid.unload(memory);
    else if (here)
        firsts[t] = first_not_finite(p, matrix, t, THREADS);
    synchronize<G>();
    if (!here) return;
    if (pivot == 0) store(memory, p, matrix, t, THREADS);
    if (t == 0) report(p, matrix, pivot, value, firsts, THREADS);
}

} // namespace damped_inverse
