// The device's own limits, which every rate is measured against: loops on registers alone, and a copy.
//
// fma_*: each thread runs CHAINS independent chains of `rounds` multiply-adds. tensor_*: each warp runs CHAINS chains of `rounds` products of fragments.
// Operations (two a multiply-add) of a launch: blocks * threads * CHAINS * rounds * 2; blocks * warps * CHAINS * rounds * 2 * m n k.
// What a chain ends in is written, so that nothing is left out: it decays to a fixed point and is the same whatever the order.
#include "prelude.cuh"

struct PeakParams {
    void* out;          // one element a thread (fma), or a warp's lane (tensor)
    const float4* from; // copy: len float4s
    long long len;
    int rounds;
    int reserved;
};
static_assert(sizeof(PeakParams) == 32, "as in peak.rs");

constexpr int CHAINS = 8;

template <class T>
static __device__ __forceinline__ void fma_chains(const PeakParams& p) {
    T sums[CHAINS];
    for (int i = 0; i < CHAINS; i++) sums[i] = T(i);
    const T factor = T(0.5), term = T(1);
    for (int round = 0; round < p.rounds; round++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++) sums[i] = fma(sums[i], factor, term);
    T total = T(0);
    for (int i = 0; i < CHAINS; i++) total += sums[i];
    static_cast<T*>(p.out)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(256) peak_fma_f32(const PeakParams p) { fma_chains<float>(p); }
KERNEL(peak_fma_f32)
extern "C" __global__ void __launch_bounds__(256) peak_fma_f64(const PeakParams p) { fma_chains<double>(p); }
KERNEL(peak_fma_f64)

// D <- A B + D with small A: values stay where they are.
template <class Multiply>
static __device__ __forceinline__ void fragment_chains(const PeakParams& p, Multiply multiply) {
    float sums[CHAINS][4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    for (int round = 0; round < p.rounds; round++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++) multiply(sums[i], a, b);
    float total = 0.0f;
    for (int i = 0; i < CHAINS; i++)
        for (int e = 0; e < 4; e++) total += sums[i][e];
    static_cast<float*>(p.out)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

struct MultiplyTf32 {
    __device__ void operator()(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const { mma_tf32(d, a, b); }
};
struct MultiplyBf16 {
    __device__ void operator()(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const { mma_bf16(d, a, b); }
};

extern "C" __global__ void __launch_bounds__(256) peak_tensor_tf32(const PeakParams p) { fragment_chains(p, MultiplyTf32()); }
KERNEL(peak_tensor_tf32)
extern "C" __global__ void __launch_bounds__(256) peak_tensor_bf16(const PeakParams p) { fragment_chains(p, MultiplyBf16()); }
KERNEL(peak_tensor_bf16)

extern "C" __global__ void __launch_bounds__(256) peak_tensor_f64(const PeakParams p) {
    double sums[CHAINS][2] = {};
    for (int round = 0; round < p.rounds; round++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++) mma_f64(sums[i], 0.0, 0.0);
    double total = 0.0;
    for (int i = 0; i < CHAINS; i++) total += sums[i][0] + sums[i][1];
    static_cast<double*>(p.out)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
KERNEL(peak_tensor_f64)

extern "C" __global__ void __launch_bounds__(256) peak_copy(const PeakParams p) {
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.len; i += step)
        static_cast<float4*>(p.out)[i] = p.from[i];
}
KERNEL(peak_copy)
