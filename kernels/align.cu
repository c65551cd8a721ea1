// Banded affine-gap alignment with traceback, two pairs a thread in the halves of its words; defined by
// src/kernel/align.rs, laid out by src/device/jobs/align_pairs.rs.
//
// A state costs about 15 instructions and 5/8 of a byte of the card's memory (its direction, and its share
// of the codes); the row of scores and insertions stays in the multiprocessor. From compute capability 9.0
// on, maxima of halves are single instructions (DPX).
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_align {

const unsigned int header_words = 8, entry_words = 4, result_words = 32, runs_max = 27;
// Neighbouring threads' codes lie in neighbouring words.
const unsigned int step = 32;
// The highest bit of each half, and the lowest.
const unsigned int signs = 0x80008000u, ones = 0x00010001u;
// Rows of more diagonals lie in the card's memory: 32 threads have 48 KiB.
const unsigned int shared_width_max = 191;
// A direction. `ends`: the best score ends with a pair or begins here, else with a gap; `first`: it is the
// pair, or the deletion, and not the begin, or the insertion. Whether the insertion was opened here, and
// the deletion to the next diagonal.
const unsigned int ends = 1, first = 2, insertion_opened = 4, deletion_opened = 8;

// Bits of `a` where `mask` is set, else of `b`.
__device__ inline unsigned int choose(unsigned int mask, unsigned int a, unsigned int b) {
    return (a & mask) | (b & ~mask);
}

// The scores, all the same in both halves. Scores have a number added that keeps them from 0 to 32767: so
// words can be added and subtracted as such, and `a - b + signs` has the highest bits of the halves where
// `a` is not below `b`.
struct Rules {
    unsigned int matched, differing, open, minus_extend, start, never, zero;
    int clip;

    __device__ explicit Rules(const unsigned int *header) {
        const unsigned int mismatch = header[2], extend = header[4], opening = header[3] + extend;
        clip = static_cast<int>(header[5]);
        const unsigned int lowest = header[5] + 1 + opening + extend + mismatch;
        matched = header[1] * ones;
        differing = (header[1] + mismatch) * ones;
        open = opening * ones;
        minus_extend = (0x10000u - extend) % 0x10000u * ones;
        zero = lowest * ones;
        start = (lowest - header[5]) * ones;
        // Below all that can be best, which is enough.
        never = start - ones;
    }
};

// The row of scores and insertions, one behind the last: in the multiprocessor, or in the card's memory.
struct Shared {
    uint2 *words;
    __device__ uint2 load(unsigned int d) const { return words[d * step]; }
    __device__ void store(unsigned int d, uint2 state) const { words[d * step] = state; }
};
struct Spilled {
    unsigned int *words;
    size_t apart;
    __device__ uint2 load(unsigned int d) const {
        return make_uint2(words[2 * d * apart], words[(2 * d + 1) * apart]);
    }
    __device__ void store(unsigned int d, uint2 state) const {
        words[2 * d * apart] = state.x;
        words[(2 * d + 1) * apart] = state.y;
    }
};

// What goes from one diagonal of a row to the next.
struct Along {
    unsigned int above, deletion;
    // The best score so far, above its diagonal counted from behind; and what makes a score one of these.
    unsigned int top, place;
    // Directions, the last one highest.
    unsigned int bits;

    // The state whose codes are `target`, in every byte, and `query`, likewise.
    __device__ inline uint2 pass(const Rules &rules, unsigned int scale, unsigned int target,
                                 unsigned int query, uint2 next) {
        const unsigned int differ = __vminu2((target ^ query) & 0x00f0000fu, ones);
        const unsigned int paired = above + rules.matched - differ * (rules.differing & 0xffffu);
        const unsigned int by_opening = next.x - rules.open;
        const unsigned int insertion = __viaddmax_s16x2(next.y, rules.minus_extend, by_opening);
        const unsigned int ending = __vmaxs2(paired, rules.start);
        const unsigned int gap = __vmaxs2(deletion, insertion);
        const unsigned int best = __vmaxs2(ending, gap);
        const unsigned int is_ending = ending - gap + signs;
        const unsigned int is_first = choose(is_ending, paired - rules.start + signs,
                                             deletion - insertion + signs);
        const unsigned int opening = best - rules.open;
        deletion = __viaddmax_s16x2(deletion, rules.minus_extend, opening);
        const unsigned int low = choose(signs, is_first, is_ending >> 1);
        const unsigned int high = choose(signs, opening - deletion + signs,
                                         (by_opening - insertion + signs) >> 1);
        bits = choose(0xf000f000u, choose(0xc000c000u, high, low >> 2), bits >> 4);
        top = __vmaxu2(top, best * scale + place);
        place -= ones;
        above = next.x;
        return make_uint2(best, insertion);
    }
};

struct End {
    int score;
    unsigned int row, diagonal;

    // Of equal ends the one furthest right is taken.
    __device__ inline void see(unsigned int top, unsigned int shift, int clip, unsigned int at, bool last) {
        const int score_here = static_cast<int>(top >> shift) - (last ? clip : 2 * clip);
        if (score_here >= score) {
            const unsigned int mask = (1u << shift) - 1;
            *this = {score_here, at, mask - (top & mask)};
        }
    }
};

// The job of a thread.
struct Unit {
    const unsigned int *query, *target;
    unsigned int rows, width, shift;
    unsigned int *directions;
    size_t apart;

    __device__ inline unsigned int quads() const { return (width + 3) / 4; }
};

// Fills the directions of all states, four of both pairs a word, and gives the best end of each.
template <typename Row>
__device__ inline void fill(const Unit &unit, const Rules &rules, Row state, End *found) {
    for (unsigned int d = 0; d < unit.width; d++) {
        state.store(d, make_uint2(rules.zero, rules.never));
    }
    state.store(unit.width, make_uint2(rules.never, rules.never));
    const unsigned int scale = 1u << unit.shift;
    const unsigned int place = (scale - 1 - ((rules.start & 0xffffu) << unit.shift)) * ones;
    End one = {-rules.clip, 0, 0}, other = one;
    unsigned int *directions = unit.directions;
    for (unsigned int row = 1; row <= unit.rows; row++) {
        const unsigned int before = row - 1, word_at = before >> 2, bits_at = 8 * (before & 3u);
        const unsigned int query = ((unit.query[step * word_at] >> bits_at) & 0xffu) * 0x01010101u;
        const unsigned int *target = unit.target + step * word_at;
        unsigned int word = target[0];
        Along along = {state.load(0).x, rules.never, 0, place, 0};
        unsigned int d = 0;
        for (; d + 4 <= unit.width; d += 4) {
            target += step;
            const unsigned int codes = __funnelshift_r(word, target[0], bits_at);
            word = target[0];
            DSGD_UNROLL
            for (unsigned int i = 0; i < 4; i++) {
                const unsigned int code = __byte_perm(codes, 0, 0x1111 * i);
                state.store(d + i, along.pass(rules, scale, code, query, state.load(d + i + 1)));
            }
            *directions = along.bits;
            directions += unit.apart;
        }
        if (d < unit.width) {
            const unsigned int codes = __funnelshift_r(word, target[step], bits_at);
            for (unsigned int i = 0; i < 4; i++) {
                if (d + i < unit.width) {
                    const unsigned int code = ((codes >> (8 * i)) & 0xffu) * 0x01010101u;
                    state.store(d + i, along.pass(rules, scale, code, query, state.load(d + i + 1)));
                } else {
                    along.bits = along.bits >> 4 & 0x0fff0fffu;
                }
            }
            *directions = along.bits;
            directions += unit.apart;
        }
        one.see(along.top & 0xffffu, unit.shift, rules.clip, row, row == unit.rows);
        other.see(along.top >> 16, unit.shift, rules.clip, row, row == unit.rows);
    }
    found[0] = one;
    found[1] = other;
}

// Follows the directions of one half back from `end`; runs are written last to first, step below, count
// above.
__device__ inline void trace(const Unit &unit, const End &end, unsigned int half, unsigned int *result) {
    const auto direction = [&](unsigned int row, unsigned int d) {
        const size_t at = static_cast<size_t>(row - 1) * unit.quads() + (d >> 2);
        return unit.directions[at * unit.apart] >> (16 * half + 4 * (d & 3u));
    };
    unsigned int row = end.row, d = end.diagonal, runs = 0, kind = 3, length = 0;
    while (row > 0) {
        const unsigned int from = direction(row, d);
        unsigned int count = 0, next = 0;
        if ((from & ends) != 0) {
            if ((from & first) == 0) {
                break;
            }
            row -= 1;
            count = 1;
        } else if ((from & first) != 0) {
            next = 2;
            do {
                d -= 1;
                count += 1;
            } while ((direction(row, d) & deletion_opened) == 0);
        } else {
            next = 1;
            bool opened = false;
            do {
                opened = (direction(row, d) & insertion_opened) != 0;
                row -= 1;
                d += 1;
                count += 1;
            } while (!opened);
        }
        if (next == kind) {
            length += count;
            continue;
        }
        if (length > 0 && runs < runs_max) {
            result[5 + runs] = kind | length << 2;
        }
        runs += length > 0 ? 1 : 0;
        kind = next;
        length = count;
    }
    if (length > 0) {
        if (runs < runs_max) {
            result[5 + runs] = kind | length << 2;
        }
        runs += 1;
    }
    result[0] = static_cast<unsigned int>(end.score);
    result[1] = row;
    result[2] = end.row;
    result[3] = row + d;
    result[4] = runs;
}

} // namespace dsgd_align

// An entry: where the query's codes begin in the data, its bases (0: nothing to do), the diagonals, and
// the bits that the number of a diagonal takes. A word has the codes of four places, one pair's in the
// lower half of each byte; the words of a thread lie 32 apart, the target's behind the query's. A result of
// either pair: score, first query base, one past the last, first target base, the number of runs, and the
// runs when there are no more than 27.
extern "C" __global__ void align(unsigned int *memory, unsigned int threads, unsigned int output_at,
                                 unsigned int scratch_at) {
    using namespace dsgd_align;
    const unsigned int thread = dsgd_index();
    if (thread >= threads) {
        return;
    }
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * thread;
    const unsigned int *data = memory + header_words + static_cast<size_t>(entry_words) * threads;
    const unsigned int rows = entry[1], width = entry[2];
    if (rows == 0) {
        return;
    }
    const unsigned int *query = data + entry[0];
    unsigned int *scratch = memory + scratch_at + thread;
    const Unit unit = {query, query + step * ((rows + 3) / 4), rows, width, entry[3], scratch, threads};
    const Rules rules(memory);
    End found[2];
    if (width <= shared_width_max) {
        uint2 *words = reinterpret_cast<uint2 *>(dsgd_shared) + threadIdx.x;
        fill(unit, rules, Shared{words}, found);
    } else {
        const size_t behind = static_cast<size_t>(rows) * unit.quads() * threads;
        fill(unit, rules, Spilled{scratch + behind, threads}, found);
    }
    unsigned int *result = memory + output_at + static_cast<size_t>(memory[0]) * thread;
    trace(unit, found[0], 0, result);
    trace(unit, found[1], 1, result + result_words);
}
