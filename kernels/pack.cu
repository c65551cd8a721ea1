// Reads as bit planes of both strands, and their qualities in bins, a thread a read. The same steps as
// shaders/pack.wgsl; defined by src/kernel/pack.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_pack {

const unsigned int header_words = 8, entry_words = 2;

// A base of the read: code below, quality above.
__device__ inline unsigned int base(const unsigned int *read, unsigned int at) {
    return read[at >> 1] >> (16 * (at & 1u)) & 0xffffu;
}

// Writes the four planes of 32 bases, which are half of a word of each.
__device__ inline void put(unsigned int *planes, unsigned int group, uint4 bits) {
    unsigned int *word = planes + 8 * (group >> 1) + (group & 1u);
    word[0] = bits.x;
    word[2] = bits.y;
    word[4] = bits.z;
    word[6] = bits.w;
}

// The planes of up to 32 bases from `begin`, in the order and the codes of one strand.
__device__ inline uint4 gather(const unsigned int *read, unsigned int bases, unsigned int begin,
                               bool backward) {
    uint4 bits = make_uint4(0, 0, 0, 0);
    for (unsigned int i = 0; i < 32 && begin + i < bases; i++) {
        const unsigned int at = backward ? bases - 1 - begin - i : begin + i;
        const unsigned int code = base(read, at) & 0xffu;
        const unsigned int known = code < 4 ? 1u : 0u;
        // Of a complement both bits are the other way round.
        const unsigned int oriented = backward ? 3u - code : code;
        bits.x |= (oriented & known) << i;
        bits.y |= (oriented >> 1 & known) << i;
        bits.z |= (1u - known) << i;
        bits.w |= 1u << i;
    }
    return bits;
}

__device__ inline unsigned int bin(unsigned int quality) {
    return (quality >= 2) + (quality >= 10) + (quality >= 20) + (quality >= 25) + (quality >= 30) +
           (quality >= 35) + (quality >= 40);
}

} // namespace dsgd_pack

// An entry: where the read begins in the data, its bases. A read's base has sixteen bits: code below,
// quality above. A result has room for `memory[1]` words of 64 bases: their planes as sequenced, those
// of the reverse complement, and eight words of bins for each.
extern "C" __global__ void pack(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                unsigned int) {
    using namespace dsgd_pack;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * job;
    const unsigned int *read = memory + header_words + static_cast<size_t>(entry_words) * jobs + entry[0];
    const unsigned int bases = entry[1], words = memory[1];
    unsigned int *forward = memory + output_at + static_cast<size_t>(memory[0]) * job;
    unsigned int *backward = forward + 8 * words, *bins = backward + 8 * words;
    for (unsigned int group = 0; group < 2 * ((bases + 63) / 64); group++) {
        put(forward, group, gather(read, bases, 32 * group, false));
        put(backward, group, gather(read, bases, 32 * group, true));
    }
    unsigned int eight = 0;
    for (unsigned int at = 0; at < bases; at++) {
        eight |= bin(base(read, at) >> 8) << (4 * (at & 7u));
        if ((at & 7u) == 7 || at + 1 == bases) {
            bins[at >> 3] = eight;
            eight = 0;
        }
    }
}
