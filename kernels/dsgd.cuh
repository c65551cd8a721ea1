// What every kernel of dsgd needs. At run time this file is put before the kernel's own text, so
// kernels include it only where that was not done.
//
// Every kernel takes the device memory of a lane and three numbers. Kernels over columns find their
// columns there; kernels over jobs find a header, an entry for each job, the jobs' data, and behind
// them room for results and scratch: see src/device/jobs/mod.rs.
#ifndef DSGD_CUH
#define DSGD_CUH

// Before a loop that is to be unrolled; the simulation on a CPU has no need of it.
#ifdef __CUDACC__
#define DSGD_UNROLL _Pragma("unroll")
#else
#define DSGD_UNROLL
#endif

// What the threads of a block share: as much as a launch asks for. Each thread uses words of its own.
extern __shared__ unsigned int dsgd_shared[];

// Which vector of the piece, or which job of the launch, this thread works on.
__device__ inline unsigned int dsgd_index() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline uint4 operator^(uint4 a, uint4 b) {
    return make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w);
}

// `v` when the lowest bit of `bit` is set, else zero; without a branch.
__device__ inline uint4 dsgd_keep(uint4 v, unsigned int bit) {
    const unsigned int mask = 0u - (bit & 1u);
    return make_uint4(v.x & mask, v.y & mask, v.z & mask, v.w & mask);
}

__device__ inline int dsgd_max(int a, int b) { return a > b ? a : b; }
__device__ inline int dsgd_min(int a, int b) { return a < b ? a : b; }

// Two signed numbers of 16 bits in one word.
__device__ inline unsigned int dsgd_pair(int low, int high) {
    return (static_cast<unsigned int>(low) & 0xffffu) | static_cast<unsigned int>(high) << 16;
}
__device__ inline int dsgd_low(unsigned int pair) { return static_cast<short>(pair & 0xffffu); }
__device__ inline int dsgd_high(unsigned int pair) { return static_cast<int>(pair) >> 16; }

// Number `at` of those of four bits each that begin at `words`.
__device__ inline unsigned int dsgd_nibble(const unsigned int *words, unsigned int at) {
    return words[at >> 3] >> (4 * (at & 7u)) & 15u;
}

#endif
