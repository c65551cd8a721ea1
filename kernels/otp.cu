// The one-time pad and the hash of the ciphertext in one pass. The same steps as shaders/otp.wgsl;
// defined by src/kernel/otp.rs.
//
// The hash is a polynomial in the key whose coefficients are the ciphertext's blocks. Thread `t` sums
// every `lanes`-th block by Horner's rule in the key's power `lanes`; the sums, taken as a message of
// `lanes` blocks, hash to what all blocks would.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

// a * b * x^-128 over GF(2^128), RFC 8452, section 3: in constant time, without tables.
__device__ inline uint4 dsgd_dot(uint4 a, uint4 b) {
    const unsigned int factors[4] = {b.x, b.y, b.z, b.w};
    uint4 product = make_uint4(0, 0, 0, 0);
    for (int limb = 0; limb < 4; limb++) {
        unsigned int factor = factors[limb];
        for (int bit = 0; bit < 32; bit++) {
            product = product ^ dsgd_keep(a, factor);
            factor >>= 1;
            // Division by x: an odd polynomial first gets the modulus added, which makes it even.
            const unsigned int odd = 0u - (product.x & 1u);
            product.x = product.x >> 1 | product.y << 31;
            product.y = product.y >> 1 | product.z << 31;
            product.z = product.z >> 1 | product.w << 31;
            product.w = product.w >> 1 ^ (odd & 0xe1000000u);
        }
    }
    return product;
}

// `value` with only its first `bytes` kept.
__device__ inline uint4 dsgd_first(uint4 value, unsigned int bytes) {
    unsigned int words[4] = {value.x, value.y, value.z, value.w};
    for (unsigned int i = 0; i < 4; i++) {
        const unsigned int kept = bytes > 4 * i ? bytes - 4 * i : 0;
        words[i] &= kept >= 4 ? 0xffffffffu : (1u << (8 * kept)) - 1;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// `columns`: the data, in place; `lanes` sums; the key's power; the pad. `bytes` of data; `mode`: bit
// 0 is set to open, clear to seal. One thread a lane.
extern "C" __global__ void otp(uint4 *columns, unsigned int bytes, unsigned int lanes,
                               unsigned int mode) {
    const unsigned int lane = dsgd_index();
    if (lane >= lanes) {
        return;
    }
    const unsigned int blocks = (bytes + 15) / 16;
    uint4 *sums = columns + blocks;
    const uint4 power = sums[lanes];
    const uint4 *pad = sums + lanes + 1;
    // As if zeros stood before the first block, so that every lane has as many.
    const unsigned int missing = (lanes - blocks % lanes) % lanes;
    uint4 sum = make_uint4(0, 0, 0, 0);
    for (unsigned int at = lane; at < blocks + missing; at += lanes) {
        uint4 block = make_uint4(0, 0, 0, 0);
        if (at >= missing) {
            const unsigned int own = at - missing;
            const uint4 before = columns[own];
            const uint4 after = before ^ pad[own];
            columns[own] = after;
            const unsigned int left = bytes - 16 * own;
            block = dsgd_first((mode & 1u) != 0 ? before : after, left < 16 ? left : 16);
        }
        sum = dsgd_dot(sum, power) ^ block;
    }
    sums[lane] = sum;
}
