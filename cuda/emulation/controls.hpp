// What a test asks of the stand-in driver, thread by thread, so that tests may run side by side: exported C functions, and what the driver
// reads of them. README.md lists them.
#pragma once

#include <atomic>

#include "emulation.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace driver {

// CUresult, as far as the driver returns it.
enum Code : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
};

struct Controls {
    int order = emulation::FORWARD;
    bool lazy = false;
    int devices = 1;
    int capability = 90;
    int version = 13000;
    std::map<std::string, int> failures;
};
inline thread_local Controls controls;

constexpr int MAX_DEVICES = 8;

// The failure that a test has asked of this call, once; SUCCESS if none. `call` may bear a version, the test's name need not.
inline Code injected(const char* call) {
    if (controls.failures.empty()) return SUCCESS;
    std::string name = call;
    auto found = controls.failures.find(name);
    if (found == controls.failures.end() && name.size() > 3 && name.compare(name.size() - 3, 2, "_v") == 0)
        found = controls.failures.find(name.substr(0, name.size() - 3));
    if (found == controls.failures.end()) return SUCCESS;
    Code code = Code(found->second);
    controls.failures.erase(found);
    return code;
}

// The allocations of a thread; each knows the count it belongs to, whoever frees it.
struct Count {
    std::atomic<long long> live{0}, ever{0};
};
inline thread_local std::shared_ptr<Count> count = std::make_shared<Count>();

} // namespace driver
