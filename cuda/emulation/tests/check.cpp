// Runs a sample through the stand-in driver and compares it with plain C++: `check LIBRARY SAMPLE ORDER [KERNEL]`, KERNEL
// being another kernel to run in its place. Exit 0 if it is right, 1 if wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <dlfcn.h>

using Pointer = unsigned long long;
using Floats = std::vector<float>;

static void* library;

template <class... Arguments>
void call(const char* name, Arguments... arguments) {
    auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
    if (!function) {
        fprintf(stderr, "check: no %s\n", name);
        exit(2);
    }
    if (int code = function(arguments...); code != 0) {
        fprintf(stderr, "check: %s: %d\n", name, code);
        exit(2);
    }
}

struct Params {
    Pointer x, y;
    int n, depth;
};
struct Dim {
    unsigned x, y;
};

static void* module;
static const char* instead; // of the kernel that the sample names

// What the kernel leaves of `size` floats.
static Floats run(const char* kernel, const Floats& x, size_t size, int n, int depth, Dim grid, Dim block, unsigned shared) {
    void* function;
    call("cuModuleGetFunction", &function, module, instead ? instead : kernel);
    Params params{0, 0, n, depth};
    call("cuMemAlloc_v2", &params.x, 4 * x.size());
    call("cuMemAlloc_v2", &params.y, 4 * size);
    call("cuMemcpyHtoD_v2", params.x, static_cast<const void*>(x.data()), 4 * x.size());
    void* parameters[] = {&params};
    call("cuLaunchKernel", function, grid.x, grid.y, 1u, block.x, block.y, 1u, shared, static_cast<void*>(nullptr),
         static_cast<void**>(parameters), static_cast<void**>(nullptr));
    Floats y(size);
    call("cuMemcpyDtoH_v2", static_cast<void*>(y.data()), params.y, 4 * size);
    call("cuMemFree_v2", params.x);
    call("cuMemFree_v2", params.y);
    return y;
}

// Small integers, so that every sum is exact.
static Floats integers(size_t size) {
    Floats x(size);
    unsigned state = 1;
    for (float& value : x) {
        state = state * 1664525 + 1013904223;
        value = float(int(state >> 16 & 15) - 7);
    }
    return x;
}

static bool same(const Floats& found, const Floats& expected) {
    return found.size() == expected.size() && std::memcmp(found.data(), expected.data(), 4 * found.size()) == 0;
}

// C (m x n) = A (m x k) B (k x n).
static Floats product(const float* a, const float* b, int m, int n, int k) {
    Floats c(size_t(m * n), 0.0f);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++) c[i * n + j] += a[i * k + l] * b[l * n + j];
    return c;
}

static bool tiles() {
    int n = 19, depth = 21;
    Floats x = integers(size_t(n * depth)), transposed(x.size());
    for (int i = 0; i < n; i++)
        for (int k = 0; k < depth; k++) transposed[k * n + i] = x[i * depth + k];
    return same(run("tiles", x, n * n, n, depth, {3, 3}, {8, 8}, 4 * 2 * 8 * 8), product(x.data(), transposed.data(), n, n, depth));
}

static bool pipeline() {
    bool right = true;
    for (int depth : {1, 2, 3, 7}) {
        Floats x = integers(size_t(64 * depth)), expected(64, 0.0f);
        for (int row = 0; row < depth; row++)
            for (int i = 0; i < 64; i++) expected[i] += x[row * 64 + 63 - i];
        right &= same(run("pipeline", x, 64, 0, depth, {1, 1}, {16, 1}, 4 * 3 * 64), expected);
    }
    return right;
}

static bool zero_fill() {
    bool right = true;
    for (int n = 0; n <= 4; n++) {
        Floats x(n == 0 ? 1 : n, 5.0f), expected(7, 0.0f); // of the exact size: AddressSanitizer sees a float too many read
        for (int i = 0; i < n; i++) expected[i] = 5.0f;
        for (int i = 0; i < n && i < 2; i++) expected[4 + i] = 5.0f;
        if (n > 0) expected[6] = 5.0f;
        right &= same(run("zero_fill", x, 7, n, 0, {1, 1}, {1, 1}, 28), expected);
    }
    return right;
}

static bool shuffles() {
    bool right = true;
    Floats x = integers(32);
    for (int width : {4, 16, 32}) {
        for (int delta : {0, 1, 3, 5}) {
            Floats expected(6 * 32);
            for (int lane = 0; lane < 32; lane++) {
                int first = lane / width * width, place = lane % width;
                expected[lane] = x[first + delta % width];
                expected[32 + lane] = x[place - delta >= 0 ? lane - delta : lane];
                expected[64 + lane] = x[place + delta < width ? lane + delta : lane];
                // A lane of an earlier segment is read, one of a later is not.
                int source = lane ^ delta;
                expected[96 + lane] = x[source / width > lane / width ? lane : source];
                expected[128 + lane] = x[lane] > 0.0f ? 1.0f : 0.0f;
                expected[160 + lane] = 5.0f;
            }
            right &= same(run("shuffles", x, 6 * 32, width, delta, {1, 1}, {32, 1}, 0), expected);
        }
    }
    return right;
}

static bool halves() {
    Floats x = integers(32), expected(32, 0.0f);
    for (int lane = 0; lane < 16; lane++)
        for (int i = 0; i < 16; i++) expected[lane] += x[i];
    for (int lane = 16; lane < 32; lane++) expected[lane] = x[lane] * x[lane ^ 1];
    return same(run("halves", x, 32, 0, 0, {1, 1}, {32, 1}, 0), expected);
}

static bool fragment(const char* kernel, int m, int k) {
    Floats x = integers(size_t(m * k + k * 8));
    return same(run(kernel, x, m * 8, 0, 0, {1, 1}, {32, 1}, 0), product(x.data(), x.data() + m * k, m, 8, k));
}

// What the types of tensor cores keep of a number, and that NaN stays NaN.
static bool rounding() {
    Floats x(256, 0.0f);
    for (int i = 0; i < 8; i++) x[128 + i * 8 + i] = 1.0f; // B = I
    const float step = std::ldexp(1.0f, -10);
    // Halfway goes away from zero, less goes down.
    x[0] = 1.0f + step / 2, x[1] = -1.0f - step / 2, x[2] = 1.0f + 0.49f * step, x[3] = 1.0f + step;
    const float tf32[] = {1.0f + step, -1.0f - step, 1.0f, 1.0f + step};
    Floats y = run("fragment_tf32", Floats(x.begin(), x.begin() + 192), 128, 0, 0, {1, 1}, {32, 1}, 0);
    bool right = std::memcmp(y.data(), tf32, sizeof tf32) == 0;

    Floats z(256 + 128, 0.0f);
    for (int i = 0; i < 8; i++) z[256 + i * 8 + i] = 1.0f;
    // Halfway goes to even.
    const float half = std::ldexp(1.0f, -8);
    z[0] = 1.0f + half, z[1] = 1.0f + 3 * half, z[2] = -1.0f - 3 * half, z[3] = 1.0f + 1.01f * half;
    const float bf16[] = {1.0f, 1.0f + 4 * half, -1.0f - 4 * half, 1.0f + 2 * half};
    y = run("fragment_bf16", z, 128, 0, 0, {1, 1}, {32, 1}, 0);
    right &= std::memcmp(y.data(), bf16, sizeof bf16) == 0;

    std::memset(&x[0], 0xff, 4);
    std::memset(&z[0], 0xff, 4);
    right &= std::isnan(run("fragment_tf32", Floats(x.begin(), x.begin() + 192), 128, 0, 0, {1, 1}, {32, 1}, 0)[0]);
    right &= std::isnan(run("fragment_bf16", z, 128, 0, 0, {1, 1}, {32, 1}, 0)[0]);
    return right;
}

static bool early_exit() {
    bool right = true;
    for (int n : {1, 31, 32, 33, 70, 96}) {
        Floats x = integers(96), expected(96);
        float positive = 0.0f;
        for (int i = 0; i < n; i++) positive += x[i] > 0.0f;
        for (int i = 0; i < n; i++) expected[i] = positive + x[i / 32 * 32];
        x.resize(n), expected.resize(n);
        right &= same(run("early_exit", x, n, n, 0, {1, 1}, {96, 1}, 0), expected);
    }
    return right;
}

static bool sums() {
    Floats x = integers(1000), expected(16, 0.0f);
    for (int i = 0; i < 1000; i++) expected[i / 64] += x[i];
    return same(run("sums", x, 16, 1000, 0, {16, 1}, {64, 1}, 8), expected);
}

int main(int count, char** arguments) {
    if (count != 4 && count != 5) return fprintf(stderr, "usage: check LIBRARY SAMPLE ORDER [KERNEL]\n"), 2;
    if (count == 5) instead = arguments[4];
    library = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) return fprintf(stderr, "check: %s\n", dlerror()), 2;
    void* context;
    call("cuInit", 0u);
    call("cuDevicePrimaryCtxRetain", &context, 0);
    call("cuCtxSetCurrent", context);
    call("cuModuleLoadData", &module, static_cast<const void*>("foof emulation image\nsamples\nsm_90\n"));
    reinterpret_cast<void (*)(int)>(dlsym(library, "foof_emulation_order"))(atoi(arguments[3]));

    std::string sample = arguments[2];
    bool right = sample == "tiles"           ? tiles()
                 : sample == "pipeline"      ? pipeline()
                 : sample == "zero_fill"     ? zero_fill()
                 : sample == "shuffles"      ? shuffles()
                 : sample == "halves"        ? halves()
                 : sample == "fragment_tf32" ? fragment("fragment_tf32", 16, 8)
                 : sample == "fragment_bf16" ? fragment("fragment_bf16", 16, 16)
                 : sample == "fragment_f64"  ? fragment("fragment_f64", 8, 4)
                 : sample == "rounding"      ? rounding()
                 : sample == "early_exit"    ? early_exit()
                 : sample == "sums"          ? sums()
                                             : (fprintf(stderr, "check: no sample %s\n", sample.c_str()), exit(2), false);
    if (!right) fprintf(stderr, "check: %s is wrong in order %s\n", sample.c_str(), arguments[3]);
    return right ? 0 : 1;
}
