// Apart, because its unrolled loops take NVRTC seconds that only matrices of this size should wait for.
#include "damped_inverse.cuh"

extern "C" __global__ void __launch_bounds__(256, 1) damped_inverse_registers256_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::registers_rung<float, 16, 16>(p, shared);
}
KERNEL(damped_inverse_registers256_f32)
