// Streams and events. By default work runs when it is enqueued. Where a test asks for laziness it is queued, and runs no sooner than
// something waits for it: a host function that forgets to wait, or reads too early, then shows.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "controls.hpp"

namespace driver {

inline std::mutex mutex;
inline std::condition_variable changed;

using Task = std::function<void()>;

// Tasks in order. Whoever waits for one runs it, and those before it.
class Queue {
public:
    // The number of tasks enqueued so far: what an event remembers.
    uint64_t ticket() {
        std::lock_guard lock(mutex);
        return enqueued;
    }

    bool reached(uint64_t ticket) {
        std::lock_guard lock(mutex);
        return completed >= ticket;
    }

    void enqueue(Task task) {
        std::unique_lock lock(mutex);
        if (!controls.lazy && tasks.empty() && !running) {
            // Not in the queue, so that threads that share a stream do not wait for each other.
            lock.unlock();
            task();
            return;
        }
        tasks.push_back(std::move(task));
        uint64_t mine = ++enqueued;
        lock.unlock();
        if (!controls.lazy) wait(mine);
    }

    // A task may itself wait, for another queue.
    void wait(uint64_t ticket) {
        std::unique_lock lock(mutex);
        while (completed < ticket) {
            if (running)
                changed.wait(lock);
            else
                step(lock);
        }
    }
    void finish() { wait(ticket()); }

    // One task at most.
    void advance() {
        std::unique_lock lock(mutex);
        if (!running && !tasks.empty()) step(lock);
    }

private:
    void step(std::unique_lock<std::mutex>& lock) {
        running = true;
        Task task = std::move(tasks.front());
        tasks.pop_front();
        lock.unlock();
        task();
        lock.lock();
        running = false;
        completed++;
        changed.notify_all();
    }

    std::deque<Task> tasks;
    uint64_t enqueued = 0, completed = 0;
    bool running = false;
};

struct Context {
    int device;
    int retained = 0;
    // The default stream's, and of the streams that synchronise with it: one after the other is an order that CUDA allows.
    std::shared_ptr<Queue> queue = std::make_shared<Queue>();
    std::vector<std::weak_ptr<Queue>> queues; // of the other streams

    void finish() {
        std::vector<std::shared_ptr<Queue>> all{queue};
        {
            std::lock_guard lock(mutex);
            for (auto& other : queues)
                if (auto queue = other.lock()) all.push_back(queue);
        }
        for (auto& queue : all) queue->finish();
    }
};

inline Context& context_of(int device) {
    static Context* all = [] {
        auto* contexts = new Context[MAX_DEVICES];
        for (int i = 0; i < MAX_DEVICES; i++) contexts[i].device = i;
        return contexts;
    }();
    return all[device];
}
inline thread_local Context* current_context = nullptr;

struct Stream {
    Context* context;
    std::shared_ptr<Queue> queue;
};

struct Event {
    using Clock = std::chrono::steady_clock;
    Context* context;
    bool timed;
    std::shared_ptr<Queue> queue; // of the stream that recorded it
    uint64_t ticket = 0;
    std::shared_ptr<Clock::time_point> time;

    bool done() { return !queue || queue->reached(ticket); }
};

// The handles of one kind that are alive: another is an error, not a crash.
template <class T>
class Handles {
public:
    T* add(std::unique_ptr<T> object) {
        std::lock_guard lock(mutex);
        T* handle = object.get();
        all[handle] = std::move(object);
        return handle;
    }
    T* find(void* handle) {
        std::lock_guard lock(mutex);
        auto found = all.find(handle);
        return found == all.end() ? nullptr : found->second.get();
    }
    std::unique_ptr<T> remove(void* handle) {
        std::lock_guard lock(mutex);
        auto found = all.find(handle);
        if (found == all.end()) return nullptr;
        auto object = std::move(found->second);
        all.erase(found);
        return object;
    }

private:
    std::mutex mutex;
    std::map<void*, std::unique_ptr<T>> all;
};

inline Handles<Stream>& streams() {
    static auto& handles = *new Handles<Stream>;
    return handles;
}
inline Handles<Event>& events() {
    static auto& handles = *new Handles<Event>;
    return handles;
}

} // namespace driver
