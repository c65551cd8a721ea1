// The one-time pad and the hash of the ciphertext in one pass, what of the pad has to be worked out worked
// out in registers. The same steps as shaders/otp.wgsl; defined by src/kernel/otp.rs.
//
// The hash is a polynomial in the key whose coefficients are the ciphertext's blocks. Thread `t` sums
// every `lanes`-th block by Horner's rule in the key's power `lanes`; the sums, taken as a message of
// `lanes` blocks, hash to what all blocks would.
//
// The key stream is AES-256 in counter mode (NIST FIPS 197, SP 800-38A), in bit slices: no table is
// looked up at a secret place, so neither caches nor banks of shared memory tell whoever else runs on the
// card anything (Jiang, Fei and Kaeli 2016, "A complete key recovery timing attack on a GPU"). Two blocks
// of one thread fill eight words, and nothing is shared between threads.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_otp {

using wide = unsigned long long;

__device__ inline wide times(unsigned int a, unsigned int b) { return static_cast<wide>(a) * b; }

// The product of two polynomials over GF(2), without carries: of every fourth bit only, carries end before
// the next one. In constant time, without tables; Pornin 2016, "Constant-time multiplication", BearSSL.
__device__ inline wide product(unsigned int a, unsigned int b) {
    const unsigned int every = 0x11111111u;
    const unsigned int a0 = a & every, a1 = a & every << 1, a2 = a & every << 2, a3 = a & every << 3;
    const unsigned int b0 = b & every, b1 = b & every << 1, b2 = b & every << 2, b3 = b & every << 3;
    const wide all = 0x1111111111111111u;
    return ((times(a0, b0) ^ times(a1, b3) ^ times(a2, b2) ^ times(a3, b1)) & all) |
           ((times(a0, b1) ^ times(a1, b0) ^ times(a2, b3) ^ times(a3, b2)) & all << 1) |
           ((times(a0, b2) ^ times(a1, b1) ^ times(a2, b0) ^ times(a3, b3)) & all << 2) |
           ((times(a0, b3) ^ times(a1, b2) ^ times(a2, b1) ^ times(a3, b0)) & all << 3);
}

// Of polynomials of 64 bits, the lower half first; after Karatsuba.
struct Product {
    wide low, high;
};
__device__ inline Product product(uint2 a, uint2 b) {
    const wide low = product(a.x, b.x), high = product(a.y, b.y);
    const wide middle = product(a.x ^ a.y, b.x ^ b.y) ^ low ^ high;
    return {low ^ middle << 32, high ^ middle >> 32};
}

// a * b * x^-128 over GF(2^128), RFC 8452, section 3.
__device__ inline uint4 dot(uint4 a, uint4 b) {
    const Product low = product(make_uint2(a.x, a.y), make_uint2(b.x, b.y));
    const Product high = product(make_uint2(a.z, a.w), make_uint2(b.z, b.w));
    const Product both = product(make_uint2(a.x ^ a.z, a.y ^ a.w), make_uint2(b.x ^ b.z, b.y ^ b.w));
    const wide limbs[4] = {low.low, low.high ^ both.low ^ low.low ^ high.low,
                           high.low ^ both.high ^ low.high ^ high.high, high.high};
    unsigned int words[8];
    DSGD_UNROLL
    for (int i = 0; i < 8; i++) {
        words[i] = static_cast<unsigned int>(limbs[i / 2] >> (32 * (i % 2)));
    }
    // The modulus, x^128 + x^127 + x^126 + x^121 + 1, as often as makes the lower half zero.
    DSGD_UNROLL
    for (int i = 0; i < 4; i++) {
        const unsigned int word = words[i];
        words[i + 4] ^= word ^ word >> 1 ^ word >> 2 ^ word >> 7;
        words[i + 3] ^= word << 31 ^ word << 30 ^ word << 25;
    }
    return make_uint4(words[4], words[5], words[6], words[7]);
}

// `value` with only its first `bytes` kept.
__device__ inline uint4 first_bytes(uint4 value, unsigned int bytes) {
    unsigned int words[4] = {value.x, value.y, value.z, value.w};
    DSGD_UNROLL
    for (unsigned int i = 0; i < 4; i++) {
        const unsigned int kept = bytes > 4 * i ? bytes - 4 * i : 0;
        words[i] &= kept >= 4 ? 0xffffffffu : (1u << (8 * kept)) - 1;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// Bit slices: plane `i` has bit `i` of all bytes of two blocks; a byte of it is a row of the state, of
// which the bits are column 0 of either block, then column 1, and so on.
struct State {
    unsigned int plane[8];
};

// Bits of `a` where `mask` is set, else of `b`.
__device__ inline unsigned int choose(unsigned int mask, unsigned int a, unsigned int b) {
    return (a & mask) | (b & ~mask);
}

// Swaps the bits of `a` above `shift` in each group with those of `b` below: a step of a transposition.
__device__ inline void swap_bits(unsigned int &a, unsigned int &b, unsigned int mask, int shift) {
    const unsigned int low = choose(mask, a, b << shift), high = choose(mask, a >> shift, b);
    a = low;
    b = high;
}

// From words to planes and back: the 8 by 8 bits of each byte of the words are transposed. Word `2 c + b`
// is column `c` of block `b`.
__device__ inline void transpose(State &state) {
    unsigned int *word = state.plane;
    DSGD_UNROLL
    for (int i = 0; i < 8; i += 2) {
        swap_bits(word[i], word[i + 1], 0x55555555u, 1);
    }
    DSGD_UNROLL
    for (int i = 0; i < 8; i += i % 4 == 1 ? 3 : 1) {
        swap_bits(word[i], word[i + 2], 0x33333333u, 2);
    }
    DSGD_UNROLL
    for (int i = 0; i < 4; i++) {
        swap_bits(word[i], word[i + 4], 0x0f0f0f0fu, 4);
    }
}

// All bytes through the S-box: the circuit of Boyar and Peralta 2010, "A new combinational logic
// minimization technique with applications to cryptology", with 32 products.
__device__ inline void substitute(State &state) {
    unsigned int *p = state.plane;
    const unsigned int x0 = p[7], x1 = p[6], x2 = p[5], x3 = p[4];
    const unsigned int x4 = p[3], x5 = p[2], x6 = p[1], x7 = p[0];
    const unsigned int y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2;
    const unsigned int y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6;
    const unsigned int y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7;
    const unsigned int y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11;
    const unsigned int y19 = y10 ^ y8, y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;
    const unsigned int t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2;
    const unsigned int t7 = y13 & y16, t9 = (y5 & y1) ^ t7, t11 = (y2 & y7) ^ t7;
    const unsigned int t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
    const unsigned int t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19;
    const unsigned int t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
    const unsigned int t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t28 = t25 & t27;
    const unsigned int t29 = t28 ^ t22, t30 = t23 ^ t24, t31 = t22 ^ t26, t32 = t31 & t30;
    const unsigned int t33 = t32 ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35;
    const unsigned int t37 = t36 ^ t34, t38 = t27 ^ t36, t39 = t29 & t38, t40 = t25 ^ t39;
    const unsigned int t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37;
    const unsigned int t45 = t42 ^ t41;
    const unsigned int z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1;
    const unsigned int z5 = t29 & y7, z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10;
    const unsigned int z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13;
    const unsigned int z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14;
    const unsigned int z17 = t41 & y8;
    const unsigned int t46 = z15 ^ z16, t48 = z5 ^ z13, t53 = z0 ^ z3, t54 = z6 ^ z7;
    const unsigned int t57 = z2 ^ z12 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57;
    const unsigned int t61 = z14 ^ t57, t62 = z7 ^ z8 ^ t58, t63 = z9 ^ z10 ^ t58, t64 = z4 ^ t59;
    const unsigned int t65 = t61 ^ t62, t66 = z1 ^ t63, s3 = t53 ^ t66;
    p[7] = t59 ^ t63;
    p[6] = ~(t64 ^ s3);
    p[5] = ~(z16 ^ z17 ^ t64 ^ t65);
    p[4] = s3;
    p[3] = z2 ^ z5 ^ t66;
    p[2] = z10 ^ z11 ^ t65;
    p[1] = ~(z12 ^ t48 ^ t62);
    p[0] = ~(t48 ^ t60);
}

// Row `r` of the state goes `r` columns to the left: its byte is rotated by `2 r` bits.
__device__ inline void shift_rows(State &state) {
    DSGD_UNROLL
    for (int i = 0; i < 8; i++) {
        const unsigned int x = state.plane[i];
        const unsigned int half = choose(0xffffu, x, choose(0x0f0f0f0fu, x >> 4, x << 4));
        state.plane[i] = choose(0x00ff00ffu, half, choose(0x3f3f3f3fu, half >> 2, half << 6));
    }
}

// Every column by the matrix of the standard, and the round key: of `a + b`, doubled, and of the others.
__device__ inline void mix_columns(State &state) {
    unsigned int sum[8], next[8];
    DSGD_UNROLL
    for (int i = 0; i < 8; i++) {
        next[i] = __funnelshift_r(state.plane[i], state.plane[i], 8);
        sum[i] = state.plane[i] ^ next[i];
    }
    DSGD_UNROLL
    for (int i = 0; i < 8; i++) {
        const unsigned int others = next[i] ^ __funnelshift_r(sum[i], sum[i], 16);
        const unsigned int carried = i == 1 || i == 3 || i == 4 ? sum[7] : 0;
        state.plane[i] = others ^ carried ^ sum[(i + 7) & 7];
    }
}

// The even bits are of the first block, the odd ones of the second, each with its own round keys.
__device__ inline void add_key(State &state, const uint4 *first, const uint4 *second) {
    const uint4 a = first[0], b = first[1], c = second[0], d = second[1];
    const unsigned int even = 0x55555555u;
    state.plane[0] ^= choose(even, a.x, c.x);
    state.plane[1] ^= choose(even, a.y, c.y);
    state.plane[2] ^= choose(even, a.z, c.z);
    state.plane[3] ^= choose(even, a.w, c.w);
    state.plane[4] ^= choose(even, b.x, d.x);
    state.plane[5] ^= choose(even, b.y, d.y);
    state.plane[6] ^= choose(even, b.z, d.z);
    state.plane[7] ^= choose(even, b.w, d.w);
}

__device__ inline unsigned int swap_bytes(unsigned int word) {
    return __byte_perm(word, 0, 0x0123);
}

// A part of the pad that is worked out: the block where it begins, its first counter block as four
// numbers, the highest first, and the planes of 15 round keys.
const unsigned int expansion_vectors = 32, keys_at = 2;

// Puts the counter block for block `at` of the piece into the words of block `which`.
__device__ inline void count(State &state, int which, const uint4 *expansion, unsigned int at) {
    const uint4 first = expansion[1];
    const unsigned int w = first.w + (at - expansion->x), z = first.z + (w < first.w ? 1 : 0);
    const unsigned int y = first.y + (z < first.z ? 1 : 0), x = first.x + (y < first.y ? 1 : 0);
    state.plane[which] = swap_bytes(x);
    state.plane[2 + which] = swap_bytes(y);
    state.plane[4 + which] = swap_bytes(z);
    state.plane[6 + which] = swap_bytes(w);
}

// The key stream of two blocks of the piece.
struct Stream {
    uint4 first, second;
};
__device__ inline Stream key_stream(const uint4 *one, unsigned int at, const uint4 *other,
                                    unsigned int beyond) {
    State state;
    count(state, 0, one, at);
    count(state, 1, other, beyond);
    transpose(state);
    const uint4 *first = one + keys_at, *second = other + keys_at;
    add_key(state, first, second);
    for (unsigned int round = 1; round < 14; round++) {
        substitute(state);
        shift_rows(state);
        mix_columns(state);
        add_key(state, first + 2 * round, second + 2 * round);
    }
    substitute(state);
    shift_rows(state);
    add_key(state, first + 28, second + 28);
    transpose(state);
    const unsigned int *word = state.plane;
    return {make_uint4(word[0], word[2], word[4], word[6]),
            make_uint4(word[1], word[3], word[5], word[7])};
}

// What a launch works on.
struct Piece {
    uint4 *data;
    unsigned int bytes;
    const uint4 *pad, *expansions;
    unsigned int count;
    bool opens;

    // The expansion of block `at`; blocks are asked for in order.
    __device__ inline const uint4 *expansion_of(const uint4 *expansion, unsigned int at) const {
        const uint4 *last = expansions + expansion_vectors * (count - 1);
        while (expansion < last && expansion[expansion_vectors].x <= at) {
            expansion += expansion_vectors;
        }
        return expansion;
    }

    // Seals or opens a block; gives the ciphertext with zeros behind its end.
    __device__ inline uint4 pass(unsigned int at, uint4 stream) const {
        const uint4 before = data[at];
        uint4 after = before ^ stream;
        if (pad != nullptr) {
            after = after ^ pad[at];
        }
        data[at] = after;
        const unsigned int left = bytes - 16 * at;
        return first_bytes(opens ? before : after, left < 16 ? left : 16);
    }
};

} // namespace dsgd_otp

// `columns`: the data, in place; `lanes` sums; the key's power; the expansions; the stored pad. `bytes` of
// data; `mode`: bit 0 is set to open, clear to seal; bit 1 is set when there is a stored pad; above is the
// number of expansions. One thread a lane.
extern "C" __global__ void otp(uint4 *columns, unsigned int bytes, unsigned int lanes,
                               unsigned int mode) {
    using namespace dsgd_otp;
    const unsigned int lane = dsgd_index();
    if (lane >= lanes) {
        return;
    }
    const unsigned int blocks = (bytes + 15) / 16, expanded = mode >> 2;
    uint4 *sums = columns + blocks;
    const uint4 power = sums[lanes];
    const uint4 *expansions = sums + lanes + 1;
    const uint4 *pad = expansions + static_cast<size_t>(expansion_vectors) * expanded;
    const Piece piece = {columns, bytes, (mode & 2u) != 0 ? pad : nullptr, expansions, expanded,
                         (mode & 1u) != 0};
    // As if zeros stood before the first block, so that every lane has as many.
    const unsigned int missing = (lanes - blocks % lanes) % lanes;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    const uint4 *expansion = expansions;
    uint4 sum = zero;
    for (unsigned int at = lane < missing ? lane + lanes - missing : lane - missing; at < blocks;) {
        const unsigned int beyond = at + lanes;
        Stream stream = {zero, zero};
        if (expanded > 0) {
            const uint4 *one = piece.expansion_of(expansion, at);
            expansion = piece.expansion_of(one, beyond);
            stream = key_stream(one, at, expansion, beyond);
        }
        sum = dot(sum, power) ^ piece.pass(at, stream.first);
        if (beyond < blocks) {
            sum = dot(sum, power) ^ piece.pass(beyond, stream.second);
        }
        at = beyond + lanes;
    }
    sums[lane] = sum;
}
