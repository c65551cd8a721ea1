// The most probable path of a pair hidden Markov model in fixed point, a thread a pair of read and
// haplotype; defined by src/kernel/pairhmm.rs.
//
// Four rows are worked out in one pass over the band, each a base behind the one above it: so all four are
// at the same base of the haplotype, and between passes a state is written once and read once. A state costs
// about 13 instructions and a byte from the haplotype.
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
const unsigned int rows_at_once = 4;
// Rows of more diagonals lie in the card's memory.
const unsigned int shared_width_max = 128;

// A row that is worked out.
struct Line {
    unsigned int base;
    int agree, differ;
    // Of the row above, its best state on this diagonal; of this row, on the diagonal before, the states
    // that end with a pair and with a deletion; the best of the row.
    int above, before, deleted, best;

    __device__ inline void begin(const unsigned int *memory, const unsigned int *read, unsigned int row,
                                 bool there) {
        const unsigned int word = there ? read[row >> 1] >> (16 * (row & 1u)) & 0xffffu : 0;
        base = word & 0xffu;
        const unsigned int penalties = memory[penalties_at + (word >> 8)];
        agree = dsgd_low(penalties);
        differ = base > 3 ? agree : dsgd_high(penalties);
        above = before = deleted = best = never;
    }

    // Takes the states of the row above on the next diagonal, and leaves its own in their place.
    __device__ inline void pass(unsigned int code, int open, int extend, int &cell, int &inserted) {
        const int matched = dsgd_min(above + (code == base ? agree : differ), never);
        above = cell;
        inserted = dsgd_min(dsgd_min(cell + open, inserted + extend), never);
        deleted = dsgd_min(before + open, deleted + extend);
        before = matched;
        cell = dsgd_min(dsgd_min(matched, inserted), deleted);
        best = dsgd_min(best, cell);
    }

    // There is no state: before the first diagonal, or behind the last.
    __device__ inline void skip(int &cell, int &inserted) {
        above = cell;
        before = deleted = cell = inserted = never;
    }
};

// The best of all states and the best that ends in an insertion, of one row: in the multiprocessor, or in
// the card's memory.
struct Shared {
    unsigned int *words;
    __device__ unsigned int &operator[](unsigned int d) const { return words[32 * d]; }
};
struct Spilled {
    unsigned int *words;
    size_t apart;
    __device__ unsigned int &operator[](unsigned int d) const { return words[d * apart]; }
};

// The band of a job.
template <typename Row>
struct Band {
    const unsigned int *haplotype;
    unsigned int bases, width;
    Row state;

    // Passes the base at `at` of the haplotype, which is on diagonal `d` of the first line.
    template <bool edge>
    __device__ inline void pass(Line *lines, unsigned int at, unsigned int d) const {
        const unsigned int from = at < bases ? haplotype[at] : outside;
        const unsigned int code = from & 7u;
        const int open = from >> 3 & 16383u, extend = from >> 17 & 16383u;
        const unsigned int next = !edge || d + 1 < width ? state[d + 1] : dsgd_pair(never, never);
        int cell = dsgd_low(next), inserted = dsgd_high(next);
        DSGD_UNROLL
        for (unsigned int i = 0; i < rows_at_once; i++) {
            // Diagonals before the first become too large.
            if (edge && d - i >= width) {
                lines[i].skip(cell, inserted);
            } else {
                lines[i].pass(code, open, extend, cell, inserted);
            }
        }
        const unsigned int last = d - (rows_at_once - 1);
        if (!edge || last < width) {
            state[last] = dsgd_pair(cell, inserted);
        }
    }
};

// The penalty of a read of `rows` bases on a band whose first diagonal is `lowest`.
template <typename Row>
__device__ inline int penalty(const unsigned int *memory, const unsigned int *read, unsigned int rows,
                              unsigned int lowest, int limit, const Band<Row> &band) {
    const unsigned int width = band.width;
    for (unsigned int d = 0; d < width; d++) {
        band.state[d] = dsgd_pair(0, never);
    }
    int result = 0;
    for (unsigned int row = 0; row < rows; row += rows_at_once) {
        Line lines[rows_at_once];
        DSGD_UNROLL
        for (unsigned int i = 0; i < rows_at_once; i++) {
            lines[i].begin(memory, read, row + i, row + i < rows);
        }
        lines[0].above = width > 0 ? dsgd_low(band.state[0]) : never;
        const unsigned int end = width + rows_at_once - 1;
        unsigned int d = 0;
        // Positions before the haplotype's begin become too large.
        for (; d < end && d < rows_at_once - 1; d++) {
            band.template pass<true>(lines, lowest + row + d, d);
        }
        for (; d + 1 < width; d++) {
            band.template pass<false>(lines, lowest + row + d, d);
        }
        for (; d < end; d++) {
            band.template pass<true>(lines, lowest + row + d, d);
        }
        DSGD_UNROLL
        for (unsigned int i = 0; i < rows_at_once; i++) {
            if (row + i < rows) {
                result = lines[i].best;
                if (result >= limit) {
                    return limit;
                }
            }
        }
    }
    return result;
}

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
    const unsigned int *read = data + entry[0];
    const unsigned int rows = entry[1], lowest = entry[4], width = entry[5];
    const int limit = static_cast<int>(entry[6]);
    int result;
    if (width <= shared_width_max) {
        const Band<Shared> band = {data + entry[2], entry[3], width, {dsgd_shared + threadIdx.x}};
        result = penalty(memory, read, rows, lowest, limit, band);
    } else {
        const Band<Spilled> band = {data + entry[2], entry[3], width, {memory + scratch_at + job, jobs}};
        result = penalty(memory, read, rows, lowest, limit, band);
    }
    memory[output_at + job] = static_cast<unsigned int>(result);
}
