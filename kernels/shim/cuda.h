// Just enough of CUDA C++ to run the kernels, whose threads know nothing of each other, on a CPU: a
// block after the other, a thread after the other.
#pragma once

#include <cstddef>

#define __global__
#define __device__
#define __shared__

// What the threads of a block share: as much as there is on a card without asking for more.
alignas(16) inline unsigned int dsgd_shared[48 * 1024 / 4];

struct uint2 {
    unsigned int x, y;
};

inline uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }

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
// Halves of words, signed and unsigned.
template <typename Half, typename Operation>
unsigned int by_halves(unsigned int a, unsigned int b, Operation operation) {
    const Half low = operation(static_cast<Half>(a), static_cast<Half>(b));
    const Half high = operation(static_cast<Half>(a >> 16), static_cast<Half>(b >> 16));
    return static_cast<unsigned short>(low) | static_cast<unsigned int>(static_cast<unsigned short>(high)) << 16;
}
inline unsigned int __vmaxs2(unsigned int a, unsigned int b) {
    return by_halves<short>(a, b, [](short x, short y) { return x > y ? x : y; });
}
inline unsigned int __vmaxu2(unsigned int a, unsigned int b) {
    using half = unsigned short;
    return by_halves<half>(a, b, [](half x, half y) { return x > y ? x : y; });
}
inline unsigned int __vminu2(unsigned int a, unsigned int b) {
    using half = unsigned short;
    return by_halves<half>(a, b, [](half x, half y) { return x < y ? x : y; });
}
inline unsigned int __viaddmax_s16x2(unsigned int a, unsigned int b, unsigned int c) {
    using half = unsigned short;
    const auto sum = [](half x, half y) { return static_cast<half>(x + y); };
    return __vmaxs2(by_halves<half>(a, b, sum), c);
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
