// The kernels of this library by name, as a driver finds and calls them.
#pragma once

namespace emulation {

struct Kernel {
    const char* name;
    const char* program;   // the .cu file it is in
    unsigned max_threads;  // of __launch_bounds__
    // Copies the parameters, as a launch does, to be called later.
    std::function<void()> (*bind)(void** parameters);
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

template <auto kernel>
struct Bind;
template <class... Parameters, void (*kernel)(Parameters...)>
struct Bind<kernel> {
    template <size_t... I>
    static std::function<void()> copy(void** parameters, std::index_sequence<I...>) {
        std::tuple<std::remove_cv_t<Parameters>...> copies(*static_cast<const std::remove_cv_t<Parameters>*>(parameters[I])...);
        return [copies] { std::apply(kernel, copies); };
    }
    static std::function<void()> bind(void** parameters) { return copy(parameters, std::index_sequence_for<Parameters...>{}); }
};

// What KERNEL(name) leaves behind. build.sh adds the program and the launch bounds, which no macro can read.
struct Registration {
    Registration(const char* name, std::function<void()> (*bind)(void**)) { kernels()[name] = Kernel{name, "", 0, bind}; }
};
// The first argument of __launch_bounds__; the second, of blocks on a multiprocessor, is the compiler's.
constexpr unsigned threads(unsigned threads, unsigned = 1) { return threads; }
struct Bounds {
    Bounds(const char* name, const char* program, unsigned max_threads) {
        Kernel& kernel = kernels()[name];
        kernel.program = program;
        kernel.max_threads = max_threads;
    }
};

} // namespace emulation
