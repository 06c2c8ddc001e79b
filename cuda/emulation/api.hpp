// What each function of the stand-in driver begins with.
#pragma once

#include "controls.hpp"
#include "memory.hpp"
#include "stream.hpp"

namespace driver {

inline std::atomic<bool> initialized{false};

// The queue of a stream's handle; null is the default stream, 1 and 2 are its two other names. Null if there is no such stream.
inline std::shared_ptr<Queue> queue_of(void* handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return current_context->queue;
    Stream* stream = streams().find(handle);
    return stream ? stream->queue : nullptr;
}
inline Context* context_of_stream(void* handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return current_context;
    Stream* stream = streams().find(handle);
    return stream ? stream->context : nullptr;
}

} // namespace driver

#define API EXPORT driver::Code
// A failure that a test has asked for, then what every call needs.
#define BEGIN                                                                      \
    if (driver::Code code = driver::injected(__func__); code != driver::SUCCESS) return code; \
    if (!driver::initialized) return driver::NOT_INITIALIZED
#define BEGIN_IN_CONTEXT \
    BEGIN;               \
    if (!driver::current_context) return driver::INVALID_CONTEXT
#define QUEUE(handle)                        \
    auto queue = driver::queue_of(handle); \
    if (!queue) return driver::INVALID_HANDLE
