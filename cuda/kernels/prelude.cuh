// The only file that knows which compiler is at work. On a GPU (NVRTC, nvcc) its words are thin wrappers over PTX; on the host (g++ or
// clang++) they are functions of the emulation. A kernel is written once, in CUDA C++17 and these words:
//
//     KERNEL(name)               after a kernel, on a line of its own: registers it with the emulation, nothing on a GPU
//     SHARED(T, name)            T* name: the block's dynamic shared memory, aligned to 128 bytes
//     cp_async16(to, from, n)    asynchronous copy of 16 bytes (8, 4: cp_async8, cp_async4) from global to shared memory, both aligned to
//                                that size: the first n bytes are copied, the others zero; n = 0 reads nothing
//     cp_async_commit()          closes the group of this thread's copies since the last commit
//     cp_async_wait<N>()         until at most N of this thread's groups are under way; other threads see the data after a barrier
//     to_tf32(x)                 the nearest TF32 (10 bits of fraction), ties away from zero, as the bits of a float
//     pack_bf16(lo, hi)          the nearest bf16 of each, ties to even, in the low and the high half
//     half_to_float(bits)        an f16 as a float, exact
//     mma_tf32, mma_bf16, mma_f64     D += A B by one warp; see the fragments below
//
// Fragments, for lane l with g = l / 4 and t = l % 4; element (i, k) of A, (k, j) of B, (i, j) of D:
//
//     mma_tf32  m16n8k8    A  (g, t) (g+8, t) (g, t+4) (g+8, t+4)        B  (t, g) (t+4, g)        D  (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
//     mma_bf16  m16n8k16   A  (g, 2t..) (g+8, 2t..) (g, 2t+8..) (g+8, 2t+8..)   B  (2t.., g) (2t+8.., g)   D  as above;  p.. is the pair p, p+1
//     mma_f64   m8n8k4     A  (g, t)      B  (t, g)      D  (g, 2t) (g, 2t+1)
#pragma once

#if defined(EMULATION_SCAN) // cuda/emulation/build.sh looks for the kernels: every word stays as it is
#elif !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include "emulation.hpp"
#else

#ifdef __CUDACC_RTC__
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

#define KERNEL(name)
#define SHARED(T, name)                                            \
    extern __shared__ __align__(128) unsigned char shared_bytes_[]; \
    T* name = reinterpret_cast<T*>(shared_bytes_)

#define PRELUDE static __device__ __forceinline__

PRELUDE uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// .cg (past L1) exists for 16 bytes only; the smaller copies go through L1.
PRELUDE void cp_async16(void* to, const void* from, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
PRELUDE void cp_async8(void* to, const void* from, int bytes = 8) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
PRELUDE void cp_async4(void* to, const void* from, int bytes = 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
PRELUDE void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int N>
PRELUDE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

PRELUDE uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
    return bits;
}
PRELUDE uint32_t pack_bf16(float lo, float hi) {
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(bits) : "f"(hi), "f"(lo));
    return bits;
}

PRELUDE float half_to_float(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;\n" : "=f"(x) : "h"(bits));
    return x;
}

PRELUDE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
PRELUDE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
PRELUDE void mma_f64(double (&d)[2], double a, double b) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};\n"
                 : "+d"(d[0]), "+d"(d[1])
                 : "d"(a), "d"(b));
}

#undef PRELUDE
#endif
