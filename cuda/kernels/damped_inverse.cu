// Damped inverses of a batch: the kernels of damped_inverse.cuh, but for the largest.
#include "damped_inverse.cuh"

extern "C" __global__ void __launch_bounds__(256) damped_inverse_block_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::block_rung(p, shared);
}
KERNEL(damped_inverse_block_f32)

extern "C" __global__ void __launch_bounds__(128) damped_inverse_registers16_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::registers_rung<float, 4, 4>(p, shared);
}
KERNEL(damped_inverse_registers16_f32)

extern "C" __global__ void __launch_bounds__(64) damped_inverse_registers32_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::registers_rung<float, 4, 8>(p, shared);
}
KERNEL(damped_inverse_registers32_f32)

extern "C" __global__ void __launch_bounds__(64) damped_inverse_registers64_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::registers_rung<float, 8, 8>(p, shared);
}
KERNEL(damped_inverse_registers64_f32)

extern "C" __global__ void __launch_bounds__(256, 2) damped_inverse_registers128_f32(const damped_inverse::Params<float> p) {
    SHARED(float, shared);
    damped_inverse::registers_rung<float, 16, 8>(p, shared);
}
KERNEL(damped_inverse_registers128_f32)

extern "C" __global__ void __launch_bounds__(256) damped_inverse_block_f64(const damped_inverse::Params<double> p) {
    SHARED(double, shared);
    damped_inverse::block_rung(p, shared);
}
KERNEL(damped_inverse_block_f64)

extern "C" __global__ void __launch_bounds__(128) damped_inverse_registers16_f64(const damped_inverse::Params<double> p) {
    SHARED(double, shared);
    damped_inverse::registers_rung<double, 4, 4>(p, shared);
}
KERNEL(damped_inverse_registers16_f64)

extern "C" __global__ void __launch_bounds__(64) damped_inverse_registers32_f64(const damped_inverse::Params<double> p) {
    SHARED(double, shared);
    damped_inverse::registers_rung<double, 4, 8>(p, shared);
}
KERNEL(damped_inverse_registers32_f64)

extern "C" __global__ void __launch_bounds__(64) damped_inverse_registers64_f64(const damped_inverse::Params<double> p) {
    SHARED(double, shared);
    damped_inverse::registers_rung<double, 8, 8>(p, shared);
}
KERNEL(damped_inverse_registers64_f64)

extern "C" __global__ void __launch_bounds__(256, 1) damped_inverse_registers128_f64(const damped_inverse::Params<double> p) {
    SHARED(double, shared);
    damped_inverse::registers_rung<double, 16, 8>(p, shared);
}
KERNEL(damped_inverse_registers128_f64)
