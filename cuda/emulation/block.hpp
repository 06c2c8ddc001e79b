// One block at a time on the calling thread: its threads as fibers, its barriers, its warps, its shared memory.
#pragma once

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    size_t volume() const { return size_t(x) * y * z; }
};

namespace emulation {

// Where a kernel calls a word of CUDA. As the default of a parameter it is the place of the call.
struct Site {
    const char* file = "?";
    int line = 0;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
    bool operator==(const Site& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

// The order of threads and of blocks: each in turn, backwards, or shuffled anew at each barrier by this seed.
enum Order : int { FORWARD = 0, BACKWARD = 1 };

struct Launch {
    const char* kernel;
    dim3 grid, block;
    size_t shared_bytes;
    int order;
    std::function<void()> body;
};

// What is read before it is written: NaN in every type of float, and far out of bounds as an index.
constexpr unsigned char POISON = 0xff;

// A copy on its way to shared memory; see async_copy.hpp.
struct Copy {
    void* to;
    int size;
    unsigned char data[16];
};

enum class State : uint8_t { READY, AT_BARRIER, IN_WARP, DONE };

struct Thread {
    Fiber fiber;
    dim3 index;
    unsigned number = 0;
    State state = State::DONE;
    Site site;
    bool vote = false;
    std::vector<Copy> copies;     // oldest first
    std::vector<size_t> groups;   // the size of each closed group, oldest first; copies past them are in the open one
};

class Block;

// A warp operation under way: what each lane brought, until all lanes of its mask have come. `finish` then serves them all.
struct Warp {
    using Finish = void (*)(void** requests, unsigned lanes);
    unsigned alive = 0, arrived = 0;
    unsigned mask[32];
    void* request[32];
    Finish finish[32];
};

class Block {
public:
    void run(const Launch& launch, dim3 block, unsigned char* shared);

    Thread& thread() { return *running; }
    const Launch& launch() const { return *launched; }
    dim3 index() const { return block; }
    unsigned char* shared() { return memory; }

    // Waits for every thread of the block that has not exited; the number of them that voted yes.
    unsigned barrier(Site site, bool vote = false) {
        running->state = State::AT_BARRIER;
        running->site = site;
        running->vote = vote;
        waiting++;
        running->fiber.yield();
        return votes;
    }

    // Waits for every lane of the mask that has not exited.
    void collective(unsigned mask, void* request, Warp::Finish finish, Site site);

    [[noreturn]] void die(const Thread& thread, const std::string& what) const {
        fprintf(stderr, "emulation: kernel %s, block (%u, %u, %u), thread (%u, %u, %u), %s:%d: %s\n", launched->kernel, block.x, block.y,
                block.z, thread.index.x, thread.index.y, thread.index.z, thread.site.file, thread.site.line, what.c_str());
        abort();
    }
    [[noreturn]] void die(Site site, const std::string& what) {
        running->site = site;
        die(*running, what);
    }

private:
    static void entry();
    void settle(Warp& warp, unsigned first);
    void release();
    [[noreturn]] void deadlock() const;
    void shuffle() {
        if (launched->order > BACKWARD) std::shuffle(turn.begin(), turn.end(), chance);
    }

    std::vector<std::unique_ptr<Thread>> threads; // kept from block to block, with their stacks
    std::vector<Warp> warps;
    std::vector<unsigned> turn;
    std::mt19937 chance;
    Thread* running = nullptr;
    unsigned count = 0, live = 0, waiting = 0, votes = 0;
    const Launch* launched = nullptr;
    dim3 block;
    unsigned char* memory = nullptr;
};

// The block that this thread of the CPU runs. Every threadIdx reads it: the faster model, of which a loaded library has a few bytes.
__attribute__((tls_model("initial-exec"))) inline thread_local constinit Block* current = nullptr;

inline std::string at(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

inline void Block::entry() {
    Block& self = *current;
    Thread& thread = *self.running;
    thread.fiber.arrive();
    self.launched->body();
    thread.state = State::DONE;
    self.live--;
    unsigned first = thread.number & ~31u;
    Warp& warp = self.warps[thread.number / 32];
    warp.alive &= ~(1u << thread.number % 32);
    self.settle(warp, first);
    thread.fiber.leave_for_ever();
}

inline void Block::run(const Launch& launch, dim3 index, unsigned char* shared) {
    launched = &launch;
    block = index;
    memory = shared;
    count = live = unsigned(launch.block.volume());
    waiting = 0;
    std::memset(memory, POISON, launch.shared_bytes);

    while (threads.size() < count) threads.push_back(std::make_unique<Thread>());
    warps.assign((count + 31) / 32, Warp{});
    for (unsigned i = 0; i < count; i++) {
        Thread& thread = *threads[i];
        thread.number = i;
        thread.index = dim3(i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y));
        thread.state = State::READY;
        thread.copies.clear();
        thread.groups.clear();
        thread.fiber.prepare(entry);
        warps[i / 32].alive |= 1u << i % 32;
    }
    turn.resize(count);
    std::iota(turn.begin(), turn.end(), 0u);
    if (launch.order == BACKWARD) std::reverse(turn.begin(), turn.end());
    chance.seed(launch.order + 977 * (index.x + 31 * (index.y + 31 * index.z)));
    shuffle();

    while (live > 0) {
        bool progress = false;
        for (unsigned i : turn) {
            if (threads[i]->state == State::READY) {
                running = threads[i].get();
                running->fiber.resume();
                progress = true;
            }
        }
        if (live > 0 && waiting == live) {
            release();
            shuffle();
        } else if (!progress) {
            deadlock();
        }
    }
    for (unsigned i = 0; i < count; i++)
        if (threads[i]->fiber.overflowed()) die(*threads[i], "its stack of " + std::to_string(STACK) + " bytes overflowed");
}

// All live threads wait at a barrier: it must be the same one.
inline void Block::release() {
    const Thread* first = nullptr;
    votes = 0;
    for (unsigned i = 0; i < count; i++) {
        Thread& thread = *threads[i];
        if (thread.state != State::AT_BARRIER) continue;
        if (!first) first = &thread;
        if (!(thread.site == first->site)) die(thread, "waits at this barrier, and other threads at the one in " + at(first->site));
        votes += thread.vote;
    }
    for (unsigned i = 0; i < count; i++)
        if (threads[i]->state == State::AT_BARRIER) threads[i]->state = State::READY;
    waiting = 0;
}

inline void Block::deadlock() const {
    const Thread* barrier = nullptr;
    const Thread* warp = nullptr;
    for (unsigned i = 0; i < count; i++) {
        if (threads[i]->state == State::AT_BARRIER) barrier = threads[i].get();
        if (threads[i]->state == State::IN_WARP) warp = threads[i].get();
    }
    // No thread is ready, and they are not all at the barrier: some wait for the rest of their warp.
    die(*warp, barrier ? "waits here for lanes of its warp that wait at the barrier in " + at(barrier->site)
                       : "waits here for lanes of its warp that never come");
}

inline void Block::collective(unsigned mask, void* request, Warp::Finish finish, Site site) {
    running->site = site;
    unsigned lane = running->number % 32, first = running->number & ~31u;
    Warp& warp = warps[running->number / 32];
    if (!(mask >> lane & 1)) die(*running, "a lane that is not in its own mask");
    warp.mask[lane] = mask;
    warp.request[lane] = request;
    warp.finish[lane] = finish;
    warp.arrived |= 1u << lane;
    running->state = State::IN_WARP;
    settle(warp, first);
    // The last to come goes on at once, or, in a random order, half of the time after others.
    if (running->state == State::IN_WARP || (launched->order > BACKWARD && chance() % 2)) running->fiber.yield();
}

// Serves those lanes that have waited for the last of their mask to come, or to exit.
inline void Block::settle(Warp& warp, unsigned first) {
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(warp.arrived >> lane & 1)) continue;
        unsigned lanes = warp.mask[lane] & warp.alive;
        if ((warp.arrived & lanes) != lanes) continue;
        Thread& leader = *threads[first + lane];
        for (unsigned other = 0; other < 32; other++) {
            if (!(lanes >> other & 1)) continue;
            Thread& thread = *threads[first + other];
            if (warp.mask[other] != warp.mask[lane]) die(thread, "a mask that differs from other lanes' in " + at(leader.site));
            if (warp.finish[other] != warp.finish[lane] || !(thread.site == leader.site))
                die(thread, "a warp operation while other lanes of its mask are at the one in " + at(leader.site));
            thread.state = State::READY;
        }
        warp.arrived &= ~lanes;
        warp.finish[lane](warp.request, lanes);
    }
}

// Runs a grid, block after block, on the calling thread.
inline void run(const Launch& launch) {
    static thread_local auto scheduler = std::make_unique<Block>();
    Block& block = *scheduler;
    // The guard is looked at after each block; AddressSanitizer has red zones of its own, and sees reads too.
#ifdef EMULATION_ASAN
    constexpr size_t GUARD = 0;
#else
    constexpr size_t GUARD = 128;
#endif
    void* shared;
    if (posix_memalign(&shared, 128, launch.shared_bytes + GUARD) != 0) abort();
    unsigned char* guard = static_cast<unsigned char*>(shared) + launch.shared_bytes;
    std::memset(guard, POISON, GUARD);

    size_t blocks = launch.grid.volume();
    std::vector<size_t> turn(blocks);
    std::iota(turn.begin(), turn.end(), size_t(0));
    if (launch.order == BACKWARD) std::reverse(turn.begin(), turn.end());
    if (launch.order > BACKWARD) std::shuffle(turn.begin(), turn.end(), std::mt19937(launch.order));

    Block* outer = std::exchange(current, &block);
    for (size_t i : turn) {
        dim3 index(unsigned(i % launch.grid.x), unsigned(i / launch.grid.x % launch.grid.y), unsigned(i / launch.grid.x / launch.grid.y));
        block.run(launch, index, static_cast<unsigned char*>(shared));
        for (size_t byte = 0; byte < GUARD; byte++) {
            if (guard[byte] == POISON) continue;
            fprintf(stderr, "emulation: kernel %s, block (%u, %u, %u): wrote byte %zu past its %zu bytes of shared memory\n", launch.kernel,
                    index.x, index.y, index.z, byte + 1, launch.shared_bytes);
            abort();
        }
    }
    current = outer;
    free(shared);
}

} // namespace emulation
