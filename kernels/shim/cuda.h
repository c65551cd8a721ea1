// Just enough of CUDA C++ to run the kernels, whose threads know nothing of each other, on a CPU: a
// block after the other, a thread after the other.
#pragma once

#include <cstddef>

#define __global__
#define __device__

struct uint4 {
    unsigned int x, y, z, w;
};

inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
    return {x, y, z, w};
}

// As much of it as is used: bytes of `low`, by number.
inline unsigned int __byte_perm(unsigned int low, unsigned int, unsigned int places) {
    unsigned int bytes = 0;
    for (int i = 0; i < 4; i++) {
        bytes |= (low >> 8 * (places >> 4 * i & 3u) & 0xffu) << 8 * i;
    }
    return bytes;
}
inline int __ffs(int word) { return __builtin_ffs(word); }
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
    return static_cast<unsigned int>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31u));
}

struct dim3 {
    unsigned int x, y, z;
};

inline dim3 blockIdx, blockDim, threadIdx;

// Runs `kernel` once for each thread of `blocks` blocks of `threads`.
template <typename Kernel, typename... Arguments>
void launch(unsigned int blocks, unsigned int threads, Kernel kernel, Arguments... arguments) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {
            kernel(arguments...);
        }
    }
}
