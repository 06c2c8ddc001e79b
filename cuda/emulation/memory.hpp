// The stand-in's device memory and pinned host memory: blocks of the host's, each of the exact size, known by address.
#pragma once

#include <mutex>

#include "controls.hpp"

namespace driver {

constexpr size_t TOTAL_MEMORY = size_t(4) << 30;
// Either side of an allocation, and poisoned: a kernel that reads it sees NaN, one that writes it is caught after the launch.
// AddressSanitizer has red zones of its own, and sees reads too.
#ifdef EMULATION_ASAN
constexpr size_t GUARD = 0;
#else
constexpr size_t GUARD = 256;
#endif

struct Allocation {
    uintptr_t first;
    size_t size;
    int device;
    bool host;  // pinned memory of the host
    bool freed; // in the order of its stream; the memory goes when the stream gets there
    std::shared_ptr<Count> owner;
};

class Memory {
public:
    Code allocate(uintptr_t* pointer, size_t size, int device, bool host) {
        std::lock_guard lock(mutex);
        if (!host && size > TOTAL_MEMORY - used[device]) return OUT_OF_MEMORY;
        void* memory;
        if (posix_memalign(&memory, 256, size + 2 * GUARD) != 0) return OUT_OF_MEMORY;
        std::memset(memory, emulation::POISON, size + 2 * GUARD);
        *pointer = reinterpret_cast<uintptr_t>(memory) + GUARD;
        all[*pointer] = Allocation{*pointer, size, device, host, false, count};
        if (!host) used[device] += size;
        count->live++;
        count->ever++;
        return SUCCESS;
    }

    // After this no call may name it.
    Code forget(uintptr_t pointer, bool host) {
        std::lock_guard lock(mutex);
        auto found = all.find(pointer);
        if (found == all.end() || found->second.freed || found->second.host != host) return INVALID_VALUE;
        found->second.freed = true;
        found->second.owner->live--;
        return SUCCESS;
    }

    void release(uintptr_t pointer) {
        std::lock_guard lock(mutex);
        auto found = all.find(pointer);
        Allocation& allocation = found->second;
        check(allocation, "a call before its memory was freed");
        if (!allocation.host) used[allocation.device] -= allocation.size;
        char* memory = reinterpret_cast<char*>(pointer - GUARD);
        std::memset(memory, emulation::POISON, allocation.size + 2 * GUARD);
        free(memory);
        all.erase(found);
    }

    // The allocation that holds these bytes.
    bool find(uintptr_t pointer, size_t bytes, Allocation* result) {
        std::lock_guard lock(mutex);
        auto next = all.upper_bound(pointer);
        if (next == all.begin()) return false;
        const Allocation& allocation = std::prev(next)->second;
        if (allocation.freed || pointer >= allocation.first + allocation.size || bytes > allocation.first + allocation.size - pointer)
            return false;
        *result = allocation;
        return true;
    }
    bool holds(uintptr_t pointer, size_t bytes) {
        Allocation allocation;
        return bytes == 0 || find(pointer, bytes, &allocation);
    }

    size_t free_bytes(int device) {
        std::lock_guard lock(mutex);
        return TOTAL_MEMORY - used[device];
    }

    // Nobody has written beside an allocation.
    void check_guards(const char* kernel) {
        if (GUARD == 0) return;
        std::lock_guard lock(mutex);
        for (auto& [pointer, allocation] : all) check(allocation, kernel);
    }

private:
    static void check(const Allocation& allocation, const char* kernel) {
        auto* first = reinterpret_cast<const unsigned char*>(allocation.first);
        for (size_t i = 1; i <= GUARD; i++) {
            bool below = first[-ptrdiff_t(i)] != emulation::POISON, above = first[allocation.size + i - 1] != emulation::POISON;
            if (!below && !above) continue;
            fprintf(stderr, "emulation: kernel %s, or one beside it: wrote byte %zu %s an allocation of %zu bytes\n", kernel, i,
                    below ? "before" : "past", allocation.size);
            abort();
        }
    }

    std::mutex mutex;
    std::map<uintptr_t, Allocation> all;
    size_t used[MAX_DEVICES] = {};
};

// Never destroyed: threads may outlive the library's statics.
inline Memory& memory() {
    static Memory& memory = *new Memory;
    return memory;
}

} // namespace driver
