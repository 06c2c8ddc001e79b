// cp.async. Between issue and wait a GPU may write the destination at any time; here both extremes show at once: the destination is poisoned
// when the copy is issued, so that a thread that still reads what was there sees NaN, and filled when the copy is waited for, so that one
// that reads too early sees NaN too.
#pragma once

namespace emulation {

inline void copy_async(void* to, const void* from, int size, int bytes, Site site) {
    auto* shared = current->shared();
    auto address = reinterpret_cast<uintptr_t>(to);
    auto first = reinterpret_cast<uintptr_t>(shared);
    if (address < first || address + unsigned(size) > first + current->launch().shared_bytes)
        current->die(site, "an asynchronous copy to outside of the block's shared memory");
    if (address % unsigned(size) != 0 || reinterpret_cast<uintptr_t>(from) % unsigned(size) != 0)
        current->die(site, "an asynchronous copy between addresses that are not multiples of its " + std::to_string(size) + " bytes");
    if (bytes < 0 || bytes > size) current->die(site, "an asynchronous copy of " + std::to_string(bytes) + " bytes");
    Copy copy{to, size, {}};
    if (bytes > 0) std::memcpy(copy.data, from, unsigned(bytes));
    std::memset(to, POISON, unsigned(size));
    current->thread().copies.push_back(copy);
}

inline void commit_copies() {
    Thread& thread = current->thread();
    size_t closed = std::accumulate(thread.groups.begin(), thread.groups.end(), size_t(0));
    thread.groups.push_back(thread.copies.size() - closed);
}

inline void wait_for_copies(size_t groups) {
    Thread& thread = current->thread();
    while (thread.groups.size() > groups) {
        for (size_t i = 0; i < thread.groups.front(); i++) std::memcpy(thread.copies[i].to, thread.copies[i].data, unsigned(thread.copies[i].size));
        thread.copies.erase(thread.copies.begin(), thread.copies.begin() + ptrdiff_t(thread.groups.front()));
        thread.groups.erase(thread.groups.begin());
    }
}

} // namespace emulation

inline void cp_async16(void* to, const void* from, int bytes = 16, emulation::Site site = emulation::Site::here()) {
    emulation::copy_async(to, from, 16, bytes, site);
}
inline void cp_async8(void* to, const void* from, int bytes = 8, emulation::Site site = emulation::Site::here()) {
    emulation::copy_async(to, from, 8, bytes, site);
}
inline void cp_async4(void* to, const void* from, int bytes = 4, emulation::Site site = emulation::Site::here()) {
    emulation::copy_async(to, from, 4, bytes, site);
}
inline void cp_async_commit() { emulation::commit_copies(); }
template <int N>
void cp_async_wait() {
    emulation::wait_for_copies(N);
}
