// The words a kernel is written in that are macros: CUDA's keywords and built-in variables, and the prelude's KERNEL and SHARED.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define threadIdx (::emulation::current->thread().index)
#define blockIdx (::emulation::current->index())
#define blockDim (::emulation::current->launch().block)
#define gridDim (::emulation::current->launch().grid)

#define KERNEL(name) static ::emulation::Registration registration_of_##name(#name, ::emulation::Bind<&name>::bind);
#define SHARED(T, name) T* name = reinterpret_cast<T*>(::emulation::current->shared())

inline void __syncthreads(emulation::Site site = emulation::Site::here()) { emulation::current->barrier(site); }
inline int __syncthreads_count(int vote, emulation::Site site = emulation::Site::here()) {
    return int(emulation::current->barrier(site, vote != 0));
}
inline int __syncthreads_or(int vote, emulation::Site site = emulation::Site::here()) {
    return emulation::current->barrier(site, vote != 0) != 0;
}
inline int __syncthreads_and(int vote, emulation::Site site = emulation::Site::here()) {
    return emulation::current->barrier(site, vote == 0) == 0;
}
