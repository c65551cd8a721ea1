// Reads laid on a reference without gaps, a thread a place: the best stretch between mismatches. The same
// steps as shaders/ungapped.wgsl; defined by src/kernel/ungapped.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_ungapped {

const unsigned int header_words = 8, entry_words = 4;
// Mismatches closer than this to each other, or half as close to the read's end, may be the mark of a gap.
const unsigned int suspicious_bases = 12;

// The three planes of 32 bases of the reference. A word of 64 bases has its planes after each other, two
// groups each: places that touch lie in one or two lines of the cache.
struct Planes {
    unsigned int low, high, unknown;
};
__device__ inline Planes group_of(const unsigned int *genome, unsigned int group) {
    const unsigned int *word = genome + static_cast<size_t>(group >> 1) * 6 + (group & 1u);
    return {word[0], word[2], word[4]};
}

struct Scores {
    int matched, mismatch, clip;
};

// The best stretch of what was seen up to `behind`, and the one that goes on from there.
struct Stretch {
    int best, points;
    unsigned int best_start, best_end, start, behind, crowded;

    // The mismatch at base `at`.
    __device__ inline void mark(unsigned int at, const Scores &scores) {
        crowded |= at - behind < suspicious_bases && behind > 0 ? 1u : 0u;
        points += static_cast<int>(at - behind) * scores.matched;
        if (points - scores.clip > best) {
            best = points - scores.clip;
            best_start = start;
            best_end = at;
        }
        points -= scores.mismatch;
        if (points < -scores.clip) {
            points = -scores.clip;
            start = at + 1;
        }
        behind = at + 1;
    }

    __device__ inline void finish(unsigned int length, const Scores &scores) {
        crowded |= behind > 0 && length - behind < suspicious_bases / 2 ? 1u : 0u;
        points += static_cast<int>(length - behind) * scores.matched;
        if (points >= best) {
            best = points;
            best_start = start;
            best_end = length;
        }
    }
};

} // namespace dsgd_ungapped

// `table`: a part of the reference. The header: words of 64 bases of the whole, the points of a match, of a
// mismatch, of a clip, and the number of the part's first word. An entry: where the read's words begin in the data, its bases, and where it is laid. A result: the
// points of the best stretch, its first base, one past its last, and whether mismatches are crowded.
extern "C" __global__ void ungapped(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                    unsigned int, const unsigned int *table) {
    using namespace dsgd_ungapped;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * job;
    const unsigned int *read = memory + header_words + static_cast<size_t>(entry_words) * jobs + entry[0];
    const unsigned int length = entry[1], position = entry[2], shift = position & 31u;
    const unsigned int words = (length + 63) / 64, first = position / 64, end = memory[1];
    const Scores scores = {static_cast<int>(memory[2]), static_cast<int>(memory[3]),
                           static_cast<int>(memory[4])};
    const bool outside = first > end || words + 1 > end - first;
    Stretch stretch = {-0x7fffffff - 1, 0, 0, 0, 0, 0, 0};
    Planes here = {0, 0, 0};
    // Counted from the part's first.
    const unsigned int group = position / 32 - 2 * memory[5];
    if (!outside) {
        here = group_of(table, group);
    }
    for (unsigned int i = 0; 32 * i < length; i++) {
        unsigned int marks = 0xffffffffu;
        if (!outside) {
            const unsigned int *planes = read + 8 * (i >> 1) + (i & 1u);
            const Planes next = group_of(table, group + i + 1);
            marks = ((__funnelshift_r(here.low, next.low, shift) ^ planes[0]) |
                     (__funnelshift_r(here.high, next.high, shift) ^ planes[2]) |
                     __funnelshift_r(here.unknown, next.unknown, shift) | planes[4]) &
                    planes[6];
            here = next;
        }
        for (; marks != 0; marks &= marks - 1) {
            const unsigned int at = 32 * i + __ffs(static_cast<int>(marks)) - 1;
            if (at < length) {
                stretch.mark(at, scores);
            }
        }
    }
    stretch.finish(length, scores);
    unsigned int *result = memory + output_at + 4 * static_cast<size_t>(job);
    result[0] = static_cast<unsigned int>(stretch.best);
    result[1] = stretch.best_start;
    result[2] = stretch.best_end;
    result[3] = stretch.crowded;
}
