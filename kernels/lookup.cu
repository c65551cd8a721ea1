// Seeds in an index, a thread a seed. The same steps as shaders/lookup.wgsl; defined by
// src/kernel/lookup.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_lookup {

const unsigned int header_words = 8, entry_words = 2;

// The first of the entries from `begin` to `end` whose rest of the hash is not below `rest`: that is
// in the upper word of an entry but for its lowest bit.
__device__ inline unsigned int bound(const unsigned int *entries, unsigned int begin,
                                     unsigned int end, unsigned int rest) {
    while (begin < end) {
        const unsigned int middle = begin + (end - begin) / 2;
        if (entries[2 * static_cast<size_t>(middle) + 1] >> 1 < rest) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

} // namespace dsgd_lookup

// `table`: the beginnings of a part's buckets, then from word `memory[1]` on its entries, two words each.
// `memory[2]`: bits of the rest of a hash; then the numbers of the part's first bucket and entry. An entry is a hash, its lower word first; a result the first
// entry of that seed and their number.
extern "C" __global__ void lookup(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                  unsigned int, const unsigned int *table) {
    using namespace dsgd_lookup;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const unsigned int *hash = memory + header_words + static_cast<size_t>(entry_words) * job;
    unsigned int *result = memory + output_at + 2 * static_cast<size_t>(job);
    // 1 to 31 bits.
    const unsigned int rest_bits = memory[2];
    const unsigned int whole = hash[0] >> rest_bits | hash[1] << (32 - rest_bits);
    const unsigned int bucket = whole - memory[3], before = memory[4];
    const unsigned int rest = hash[0] & ((1u << rest_bits) - 1);
    const unsigned int *entries = table + memory[1];
    const unsigned int end = table[bucket + 1] - before;
    const unsigned int first = bound(entries, table[bucket] - before, end, rest);
    result[0] = first + before;
    result[1] = bound(entries, first, end, rest + 1) - first;
}
