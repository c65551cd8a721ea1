// The most probable path of a pair hidden Markov model in fixed point, a thread a pair of read and
// haplotype. The same steps as shaders/pairhmm.wgsl; defined by src/kernel/pairhmm.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_pairhmm {

const unsigned int header_words = 64, entry_words = 8;
// Penalties by quality: agreeing below, differing above.
const unsigned int penalties_at = 1;
const int never = 16383;
// A haplotype base beyond its ends: differs from every base, and has no gaps.
const unsigned int outside = 5u | 16383u << 3 | 16383u << 17;

} // namespace dsgd_pairhmm

// The header: words of a result, then penalties by quality. An entry: where the read begins in the
// data, its bases, where the haplotype begins, its bases, the lowest diagonal, the diagonals, the
// limit. A read's base has sixteen bits: code below, quality above; a haplotype's has a word: code in
// 3 bits, opening of a gap in 14, its extension in 14. The result is the penalty.
extern "C" __global__ void pairhmm(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                   unsigned int scratch_at) {
    using namespace dsgd_pairhmm;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * job;
    const unsigned int *data = memory + header_words + static_cast<size_t>(entry_words) * jobs;
    const unsigned int *read = data + entry[0], *haplotype = data + entry[2];
    const unsigned int rows = entry[1], bases = entry[3], width = entry[5];
    const int low = static_cast<int>(entry[4]), limit = static_cast<int>(entry[6]);
    // Best of all states and best that ends in an insertion, of one row.
    unsigned int *state = memory + scratch_at + job;
    for (unsigned int d = 0; d < width; d++) {
        state[static_cast<size_t>(d) * jobs] = dsgd_pair(0, never);
    }
    int result = 0;
    for (unsigned int row = 0; row < rows; row++) {
        const unsigned int read_base = read[row >> 1] >> (16 * (row & 1u)) & 0xffffu;
        const unsigned int base = read_base & 0xffu;
        const unsigned int penalties = memory[penalties_at + (read_base >> 8)];
        const int agree = dsgd_low(penalties);
        const int differ = base > 3 ? agree : dsgd_high(penalties);
        int before = never, deleted = never, best = never;
        unsigned int here = width > 0 ? state[0] : 0;
        for (unsigned int d = 0; d < width; d++) {
            // Positions before the haplotype's begin become too large.
            const unsigned int at = static_cast<unsigned int>(low) + row + d;
            const unsigned int from = at < bases ? haplotype[at] : outside;
            const int open = from >> 3 & 16383u, extend = from >> 17 & 16383u;
            const unsigned int next = d + 1 < width ? state[static_cast<size_t>(d + 1) * jobs]
                                                    : dsgd_pair(never, never);
            const int pair = dsgd_low(here) + ((from & 7u) == base ? agree : differ);
            const int matched = dsgd_min(pair, never);
            const int inserted = dsgd_min(
                dsgd_min(dsgd_low(next) + open, dsgd_high(next) + extend), never);
            deleted = dsgd_min(before + open, deleted + extend);
            before = matched;
            const int cell = dsgd_min(dsgd_min(matched, inserted), dsgd_min(deleted, never));
            best = dsgd_min(best, cell);
            state[static_cast<size_t>(d) * jobs] = dsgd_pair(cell, inserted);
            here = next;
        }
        result = best;
        if (best >= limit) {
            result = limit;
            break;
        }
    }
    memory[output_at + job] = static_cast<unsigned int>(result);
}
