// A fiber: a stack of its own and the switch to and from the thread that schedules it.
#pragma once

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATION_ASAN 1
#endif
#endif
#ifdef EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// Saves the callee-saved registers on this stack, leaves its top in *save, and goes on from `load`. Defined in fiber.cpp: a system call
// less than swapcontext, and blocks switch a million times.
extern "C" void emulation_switch(void** save, void* load);
#else
#include <ucontext.h>
#endif

namespace emulation {

// AddressSanitizer's frames are several times larger.
#ifdef EMULATION_ASAN
constexpr size_t STACK = 512 << 10;
#else
constexpr size_t STACK = 128 << 10;
#endif

class Fiber {
public:
    Fiber() {
        // Only the pages that are touched exist: a block of 1024 threads does not cost 128 MiB.
        void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            perror("emulation: no stack for a thread");
            abort();
        }
        stack = static_cast<char*>(memory);
        std::memcpy(stack, &CANARY, sizeof CANARY);
    }
    ~Fiber() {
        unpoison();
        munmap(stack, STACK);
    }
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // The next `resume` calls `entry`, which must end in `leave_for_ever`.
    void prepare(void (*entry)()) {
        unpoison();
#ifdef __x86_64__
        void** top = reinterpret_cast<void**>(stack + STACK);
        *--top = nullptr; // where `entry` would return to; it leaves the stack aligned as a call does
        *--top = reinterpret_cast<void*>(entry);
        for (int saved = 0; saved < 6; saved++) *--top = nullptr;
        here = top;
#else
        getcontext(&here);
        here.uc_stack.ss_sp = stack;
        here.uc_stack.ss_size = STACK;
        here.uc_link = nullptr;
        makecontext(&here, entry, 0);
#endif
    }

    // From the scheduler into the fiber, until it yields or leaves.
    void resume() {
#ifdef EMULATION_ASAN
        void* fake;
        __sanitizer_start_switch_fiber(&fake, stack, STACK);
#endif
        change(there, here);
#ifdef EMULATION_ASAN
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    }

    // From the fiber to the scheduler.
    void yield() {
#ifdef EMULATION_ASAN
        void* fake;
        __sanitizer_start_switch_fiber(&fake, scheduler, scheduler_size);
#endif
        change(here, there);
#ifdef EMULATION_ASAN
        __sanitizer_finish_switch_fiber(fake, &scheduler, &scheduler_size);
#endif
    }

    // The first thing on the fiber's stack.
    void arrive() {
#ifdef EMULATION_ASAN
        __sanitizer_finish_switch_fiber(nullptr, &scheduler, &scheduler_size);
#endif
    }

    [[noreturn]] void leave_for_ever() {
#ifdef EMULATION_ASAN
        __sanitizer_start_switch_fiber(nullptr, scheduler, scheduler_size); // null: the fiber's fake stack can go
#endif
        change(here, there);
        abort();
    }

    bool overflowed() const { return std::memcmp(stack, &CANARY, sizeof CANARY) != 0; }

private:
    static constexpr uint64_t CANARY = 0x5afe57acc0ffee00;

#ifdef __x86_64__
    using Context = void*;
    static void change(Context& from, Context& to) { emulation_switch(&from, to); }
#else
    using Context = ucontext_t;
    static void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

    // A frame that is left for ever does not take its red zones away.
    void unpoison() {
#ifdef EMULATION_ASAN
        __asan_unpoison_memory_region(stack, STACK);
#endif
    }

    char* stack;
    Context here{}, there{};
    const void* scheduler = nullptr;
    size_t scheduler_size = 0;
};

} // namespace emulation
