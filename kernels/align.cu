// Banded affine-gap alignment with traceback, a thread a pair. The same steps as shaders/align.wgsl;
// defined by src/kernel/align.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_align {

const unsigned int header_words = 8, entry_words = 4, runs_max = 27;
const int never = -20000;
// Where the best score of a state comes from, in two bits; and two more, whether its deletion and its
// insertion were opened there.
const unsigned int from_pair = 0, from_start = 1, from_deletion = 2, from_insertion = 3;
const unsigned int deletion_opened = 4, insertion_opened = 8;

struct Scores {
    int matched, mismatch, open, extend, clip;
};

struct End {
    int score;
    unsigned int row, diagonal;
};

// The job's words of scratch lie `step` apart, so that neighbouring threads touch neighbouring words.
struct Scratch {
    unsigned int *first;
    size_t step;
    __device__ unsigned int &operator[](size_t at) const { return first[at * step]; }
};

// Fills the directions of all states, eight a word, and gives the best end. `state` holds the row's
// scores and insertions, `directions` those of rows 1 to `rows`.
__device__ End fill(const unsigned int *query, const unsigned int *target, unsigned int rows,
                    unsigned int width, const Scores &scores, Scratch state, Scratch directions) {
    const int open = scores.open + scores.extend;
    const unsigned int row_words = (width + 7) / 8;
    for (unsigned int d = 0; d < width; d++) {
        state[d] = dsgd_pair(0, never);
    }
    End end = {-scores.clip, 0, 0};
    for (unsigned int row = 1; row <= rows; row++) {
        const unsigned int base = dsgd_nibble(query, row - 1);
        int above = dsgd_low(state[0]), deletion = never, top = never;
        unsigned int top_at = 0, opened = 0, bits = 0, codes = target[(row - 1) >> 3];
        for (unsigned int d = 0; d < width; d++) {
            const unsigned int at = row - 1 + d;
            if ((at & 7u) == 0) {
                codes = target[at >> 3];
            }
            const unsigned int other = codes >> (4 * (at & 7u)) & 15u;
            const unsigned int next = d + 1 < width ? state[d + 1] : dsgd_pair(never, never);
            const int by_opening = dsgd_low(next) - open;
            const int by_extending = dsgd_high(next) - scores.extend;
            const int insertion = dsgd_max(by_opening, by_extending);
            const bool equal = base == other && base < 4;
            const int paired = above + (equal ? scores.matched : -scores.mismatch);
            const int best = dsgd_max(dsgd_max(paired, -scores.clip), dsgd_max(insertion, deletion));
            const unsigned int from = best == paired          ? from_pair
                                      : best == -scores.clip  ? from_start
                                      : best == deletion      ? from_deletion
                                                              : from_insertion;
            const unsigned int direction =
                from | opened | (by_opening >= by_extending ? insertion_opened : 0);
            bits |= direction << (4 * (d & 7u));
            if ((d & 7u) == 7 || d + 1 == width) {
                directions[static_cast<size_t>(row - 1) * row_words + (d >> 3)] = bits;
                bits = 0;
            }
            state[d] = dsgd_pair(best, insertion);
            if (best > top) {
                top = best;
                top_at = d;
            }
            opened = best - open >= deletion - scores.extend ? deletion_opened : 0;
            deletion = dsgd_max(best - open, deletion - scores.extend);
            above = dsgd_low(next);
        }
        // Of equal ends the one furthest right is taken.
        const int score = top - (row == rows ? 0 : scores.clip);
        if (score >= end.score) {
            end = {score, row, top_at};
        }
    }
    return end;
}

// Follows the directions back from `end`; runs are written last to first, step below, count above.
__device__ void trace(const End &end, unsigned int width, Scratch directions,
                      unsigned int *result) {
    const unsigned int row_words = (width + 7) / 8;
    const auto direction = [&](unsigned int row, unsigned int d) {
        return directions[static_cast<size_t>(row - 1) * row_words + (d >> 3)] >> (4 * (d & 7u));
    };
    unsigned int row = end.row, d = end.diagonal, runs = 0, step = 3, length = 0;
    while (row > 0) {
        const unsigned int from = direction(row, d) & 3u;
        if (from == from_start) {
            break;
        }
        unsigned int count = 1, next = 0;
        if (from == from_pair) {
            row -= 1;
        } else if (from == from_deletion) {
            next = 2;
            while ((direction(row, d) & deletion_opened) == 0) {
                d -= 1;
                count += 1;
            }
            d -= 1;
        } else {
            next = 1;
            while ((direction(row, d) & insertion_opened) == 0) {
                row -= 1;
                d += 1;
                count += 1;
            }
            row -= 1;
            d += 1;
        }
        if (next == step) {
            length += count;
            continue;
        }
        if (length > 0 && runs < runs_max) {
            result[5 + runs] = step | length << 2;
        }
        runs += length > 0 ? 1 : 0;
        step = next;
        length = count;
    }
    if (length > 0) {
        if (runs < runs_max) {
            result[5 + runs] = step | length << 2;
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

// An entry: where the query's codes begin in the data, its bases, where the target's begin, the
// diagonals. A result: score, first query base, one past the last, first target base, the number of
// runs, and the runs when there are no more than 27.
extern "C" __global__ void align(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                 unsigned int scratch_at) {
    using namespace dsgd_align;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const Scores scores = {static_cast<int>(memory[1]), static_cast<int>(memory[2]),
                           static_cast<int>(memory[3]), static_cast<int>(memory[4]),
                           static_cast<int>(memory[5])};
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * job;
    const unsigned int *data = memory + header_words + static_cast<size_t>(entry_words) * jobs;
    const unsigned int rows = entry[1], width = entry[3];
    const Scratch state = {memory + scratch_at + job, jobs};
    const Scratch directions = {state.first + static_cast<size_t>(width) * jobs, jobs};
    const End end = fill(data + entry[0], data + entry[2], rows, width, scores, state, directions);
    trace(end, width, directions, memory + output_at + static_cast<size_t>(memory[0]) * job);
}
