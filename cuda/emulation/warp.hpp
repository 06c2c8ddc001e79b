// Warp operations. A lane outside of the mask, or one that has exited, has no value: a shuffle that reads one is an error here, where a GPU
// returns what it likes.
#pragma once

namespace emulation {

inline unsigned lane() { return current->thread().number % 32; }

template <class T>
struct Shuffle {
    T value, result;
    unsigned source;
};

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Shuffle<T> request{value, value, source};
    current->collective(
        mask, &request,
        [](void** requests, unsigned lanes) {
            for (unsigned l = 0; l < 32; l++) {
                if (!(lanes >> l & 1)) continue;
                auto* request = static_cast<Shuffle<T>*>(requests[l]);
                if (!(lanes >> request->source & 1))
                    current->die(current->thread(), "lane " + std::to_string(l) + " reads lane " + std::to_string(request->source) +
                                                         ", which takes no part in this shuffle");
                request->result = static_cast<Shuffle<T>*>(requests[request->source])->value;
            }
        },
        site);
    return request.result;
}

// What every vote is made of: the lanes that say yes, and those that vote.
struct Vote {
    bool yes;
    unsigned result, lanes;
};
inline Vote vote(unsigned mask, bool yes, Site site) {
    Vote request{yes, 0, 0};
    current->collective(
        mask, &request,
        [](void** requests, unsigned lanes) {
            unsigned result = 0;
            for (unsigned l = 0; l < 32; l++)
                if (lanes >> l & 1 && static_cast<Vote*>(requests[l])->yes) result |= 1u << l;
            for (unsigned l = 0; l < 32; l++) {
                if (!(lanes >> l & 1)) continue;
                static_cast<Vote*>(requests[l])->result = result;
                static_cast<Vote*>(requests[l])->lanes = lanes;
            }
        },
        site);
    return request;
}

} // namespace emulation

inline void __syncwarp(unsigned mask = ~0u, emulation::Site site = emulation::Site::here()) {
    emulation::current->collective(mask, nullptr, [](void**, unsigned) {}, site);
}

// The four shuffles stay within segments of `width` lanes, a power of two; a source outside of the segment is the lane itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, emulation::Site site = emulation::Site::here()) {
    unsigned segment = unsigned(width) - 1;
    return emulation::shuffle(mask, value, (emulation::lane() & ~segment) | (unsigned(source) & segment), site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, emulation::Site site = emulation::Site::here()) {
    unsigned lane = emulation::lane(), place = lane & (unsigned(width) - 1);
    return emulation::shuffle(mask, value, place >= delta ? lane - delta : lane, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, emulation::Site site = emulation::Site::here()) {
    unsigned lane = emulation::lane(), place = lane & (unsigned(width) - 1);
    return emulation::shuffle(mask, value, place + delta < unsigned(width) ? lane + delta : lane, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, emulation::Site site = emulation::Site::here()) {
    unsigned lane = emulation::lane(), segment = unsigned(width) - 1, source = lane ^ unsigned(bits);
    return emulation::shuffle(mask, value, (source & ~segment) > (lane & ~segment) ? lane : source % 32, site);
}

inline unsigned __ballot_sync(unsigned mask, int yes, emulation::Site site = emulation::Site::here()) {
    return emulation::vote(mask, yes != 0, site).result;
}
inline int __any_sync(unsigned mask, int yes, emulation::Site site = emulation::Site::here()) {
    return emulation::vote(mask, yes != 0, site).result != 0;
}
inline int __all_sync(unsigned mask, int yes, emulation::Site site = emulation::Site::here()) {
    emulation::Vote vote = emulation::vote(mask, yes != 0, site);
    return vote.result == vote.lanes;
}
