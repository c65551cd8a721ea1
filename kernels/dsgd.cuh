// What every kernel of dsgd needs. At run time this file is put before the kernel's own text, so
// kernels include it only where that was not done.
#ifndef DSGD_CUH
#define DSGD_CUH

// Which vector of the piece this thread works on.
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

#endif
