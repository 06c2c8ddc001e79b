// The stand-in driver's memory: allocations, copies, fills, and what is known of a pointer. Every range is looked up, and one that leaves its
// allocation is refused.
#include "api.hpp"

using namespace driver;

using Pointer = unsigned long long; // CUdeviceptr

static char* address(Pointer pointer) { return reinterpret_cast<char*>(pointer); }

// Allocation and release.

static Code allocate(Pointer* pointer, size_t bytes) {
    uintptr_t found;
    Code code = memory().allocate(&found, bytes, current_context->device, false);
    if (code == SUCCESS) *pointer = found;
    return code;
}

API cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
    BEGIN_IN_CONTEXT;
    return bytes == 0 ? INVALID_VALUE : allocate(pointer, bytes);
}
API cuMemFree_v2(Pointer pointer) {
    BEGIN_IN_CONTEXT;
    if (pointer == 0) return SUCCESS;
    if (Code code = memory().forget(pointer, false); code != SUCCESS) return code;
    current_context->finish();
    memory().release(pointer);
    return SUCCESS;
}
// At the time of the call, for its pointer must be known. Nothing is a null pointer.
API cuMemAllocAsync(Pointer* pointer, size_t bytes, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (bytes == 0) return *pointer = 0, SUCCESS;
    return allocate(pointer, bytes);
}
API cuMemFreeAsync(Pointer pointer, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (pointer == 0) return SUCCESS;
    if (Code code = memory().forget(pointer, false); code != SUCCESS) return code;
    queue->enqueue([pointer] { memory().release(pointer); });
    return SUCCESS;
}
API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    BEGIN_IN_CONTEXT;
    uintptr_t found;
    Code code = memory().allocate(&found, bytes, current_context->device, true);
    if (code == SUCCESS) *pointer = reinterpret_cast<void*>(found);
    return code;
}
API cuMemFreeHost(void* pointer) {
    BEGIN_IN_CONTEXT;
    auto first = reinterpret_cast<uintptr_t>(pointer);
    if (Code code = memory().forget(first, true); code != SUCCESS) return code;
    current_context->finish();
    memory().release(first);
    return SUCCESS;
}
API cuMemGetInfo_v2(size_t* free, size_t* total) {
    BEGIN_IN_CONTEXT;
    *free = memory().free_bytes(current_context->device);
    *total = TOTAL_MEMORY;
    return SUCCESS;
}

// What is known of a pointer.

API cuPointerGetAttribute(void* value, int which, Pointer pointer) {
    BEGIN_IN_CONTEXT;
    Allocation allocation;
    if (!memory().find(pointer, 0, &allocation)) return INVALID_VALUE;
    switch (which) {
    case 1: *static_cast<void**>(value) = &context_of(allocation.device); return SUCCESS;     // CONTEXT
    case 2: *static_cast<unsigned*>(value) = allocation.host ? 1 : 2; return SUCCESS;         // MEMORY_TYPE: host, device
    case 3: *static_cast<Pointer*>(value) = pointer; return SUCCESS;                          // DEVICE_POINTER
    case 8: *static_cast<unsigned*>(value) = 0; return SUCCESS;                               // IS_MANAGED
    case 9: *static_cast<int*>(value) = allocation.device; return SUCCESS;                    // DEVICE_ORDINAL
    case 11: *static_cast<Pointer*>(value) = allocation.first; return SUCCESS;                // RANGE_START_ADDR
    case 12: *static_cast<size_t*>(value) = allocation.size; return SUCCESS;                  // RANGE_SIZE
    default: return INVALID_VALUE;
    }
}
API cuMemGetAddressRange_v2(Pointer* first, size_t* bytes, Pointer pointer) {
    BEGIN_IN_CONTEXT;
    Allocation allocation;
    if (!memory().find(pointer, 0, &allocation)) return NOT_FOUND;
    if (first) *first = allocation.first;
    if (bytes) *bytes = allocation.size;
    return SUCCESS;
}

// Copies and fills. Pageable memory is read at the call, as a driver stages it; pinned memory is read, and any host memory written, when the
// stream gets there.

API cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (!memory().holds(to, bytes)) return INVALID_VALUE;
    if (bytes == 0) return SUCCESS;
    if (memory().holds(reinterpret_cast<uintptr_t>(from), bytes)) {
        queue->enqueue([=] { std::memcpy(address(to), from, bytes); });
    } else {
        auto* first = static_cast<const char*>(from);
        queue->enqueue([to, staged = std::vector<char>(first, first + bytes)] { std::memcpy(address(to), staged.data(), staged.size()); });
    }
    return SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (!memory().holds(from, bytes)) return INVALID_VALUE;
    if (bytes > 0) queue->enqueue([=] { std::memcpy(to, address(from), bytes); });
    return SUCCESS;
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (!memory().holds(to, bytes) || !memory().holds(from, bytes)) return INVALID_VALUE;
    if (bytes > 0) queue->enqueue([=] { std::memmove(address(to), address(from), bytes); });
    return SUCCESS;
}
API cuMemcpyPeerAsync(Pointer to, void*, Pointer from, void*, size_t bytes, void* stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
API cuMemsetD8Async(Pointer to, unsigned char byte, size_t bytes, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (!memory().holds(to, bytes)) return INVALID_VALUE;
    if (bytes > 0) queue->enqueue([=] { std::memset(address(to), byte, bytes); });
    return SUCCESS;
}
API cuMemsetD32Async(Pointer to, unsigned word, size_t words, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (to % 4 != 0 || !memory().holds(to, 4 * words)) return INVALID_VALUE;
    if (words > 0) queue->enqueue([=] { std::fill_n(reinterpret_cast<unsigned*>(to), words, word); });
    return SUCCESS;
}

// The same on the default stream, and waited for. A fill is not waited for, as on a GPU.

API cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
    BEGIN_IN_CONTEXT;
    Code code = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
    current_context->queue->finish();
    return code;
}
API cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) {
    BEGIN_IN_CONTEXT;
    Code code = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    current_context->queue->finish();
    return code;
}
API cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemsetD8_v2(Pointer to, unsigned char byte, size_t bytes) { return cuMemsetD8Async(to, byte, bytes, nullptr); }
