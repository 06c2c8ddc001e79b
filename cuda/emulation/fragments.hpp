// Matrix fragments: the conversions to the tensor cores' types, and mma.sync. prelude.cuh says which lane holds what.
#pragma once

namespace emulation {

inline uint32_t bits(float x) {
    uint32_t result;
    std::memcpy(&result, &x, sizeof result);
    return result;
}
inline float from_bits(uint32_t x) {
    float result;
    std::memcpy(&result, &x, sizeof result);
    return result;
}

// Towards zero, as tensor cores add; products of TF32 or bf16 are exact in double.
inline float add_truncating(float sum, double term) {
    double exact = double(sum) + term;
    float nearest = float(exact);
    return std::fabs(double(nearest)) > std::fabs(exact) && std::isfinite(nearest) ? std::nextafter(nearest, 0.0f) : nearest;
}

struct MmaF32 {
    float* d;
    const uint32_t *a, *b;
};

// D (16 x 8) += A (16 x depth) B (depth x 8), `left` and `right` reading an element from the lanes' registers.
template <int depth, float (*left)(MmaF32**, int, int), float (*right)(MmaF32**, int, int)>
void mma_f32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    MmaF32 request{d, a, b};
    current->collective(
        ~0u, &request,
        [](void** requests, unsigned lanes) {
            if (lanes != ~0u) current->die(current->thread(), "an mma of a warp whose lanes are not all there");
            auto* lane = reinterpret_cast<MmaF32**>(requests);
            float a[16][depth], b[depth][8];
            for (int k = 0; k < depth; k++) {
                for (int i = 0; i < 16; i++) a[i][k] = left(lane, i, k);
                for (int j = 0; j < 8; j++) b[k][j] = right(lane, k, j);
            }
            for (int l = 0; l < 32; l++) {
                for (int e = 0; e < 4; e++) {
                    int i = l / 4 + 8 * (e / 2), j = l % 4 * 2 + e % 2;
                    float sum = lane[l]->d[e];
                    for (int k = 0; k < depth; k++) sum = add_truncating(sum, double(a[i][k]) * b[k][j]);
                    lane[l]->d[e] = sum;
                }
            }
        },
        site);
}

// The low 13 bits of a TF32 register are not looked at.
inline float left_tf32(MmaF32** lane, int i, int k) { return from_bits(lane[i % 8 * 4 + k % 4]->a[i / 8 + 2 * (k / 4)] & ~0x1fffu); }
inline float right_tf32(MmaF32** lane, int k, int j) { return from_bits(lane[j * 4 + k % 4]->b[k / 4] & ~0x1fffu); }

inline float half_bf16(uint32_t pair, int which) { return from_bits(pair >> (16 * which) << 16); }
inline float left_bf16(MmaF32** lane, int i, int k) { return half_bf16(lane[i % 8 * 4 + k % 8 / 2]->a[i / 8 + 2 * (k / 8)], k % 2); }
inline float right_bf16(MmaF32** lane, int k, int j) { return half_bf16(lane[j * 4 + k % 8 / 2]->b[k / 8], k % 2); }

struct MmaF64 {
    double* d;
    double a, b;
};

} // namespace emulation

// A NaN stays one: the poison's bits would round up to zero.
inline uint32_t to_tf32(float x) { return std::isnan(x) ? 0x7fffffffu : (emulation::bits(x) + 0x1000u) & ~0x1fffu; }

inline uint32_t pack_bf16(float lo, float hi) {
    auto round = [](float x) {
        uint32_t u = emulation::bits(x);
        return std::isnan(x) ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16;
    };
    return round(lo) | round(hi) << 16;
}

inline float half_to_float(uint16_t bits) {
    const float magnitude = emulation::from_bits(uint32_t(bits & 0x7fffu) << 13) * 0x1p112f; // also of subnormal numbers
    const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;
    return emulation::from_bits(emulation::bits(magnitude) | special | uint32_t(bits & 0x8000u) << 16);
}

inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], emulation::Site site = emulation::Site::here()) {
    emulation::mma_f32<8, emulation::left_tf32, emulation::right_tf32>(d, a, b, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], emulation::Site site = emulation::Site::here()) {
    emulation::mma_f32<16, emulation::left_bf16, emulation::right_bf16>(d, a, b, site);
}

// Fused multiply-adds in the order of k.
inline void mma_f64(double (&d)[2], double a, double b, emulation::Site site = emulation::Site::here()) {
    emulation::MmaF64 request{d, a, b};
    emulation::current->collective(
        ~0u, &request,
        [](void** requests, unsigned lanes) {
            if (lanes != ~0u) emulation::current->die(emulation::current->thread(), "an mma of a warp whose lanes are not all there");
            auto* lane = reinterpret_cast<emulation::MmaF64**>(requests);
            for (int l = 0; l < 32; l++)
                for (int e = 0; e < 2; e++)
                    for (int k = 0; k < 4; k++)
                        lane[l]->d[e] = std::fma(lane[l / 4 * 4 + k]->a, lane[(l % 4 * 2 + e) * 4 + k]->b, lane[l]->d[e]);
        },
        site);
}
