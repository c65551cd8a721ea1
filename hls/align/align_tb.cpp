// Test bench of align.cpp: the score is that of Gotoh's recurrences over the whole rectangle, and the
// columns of the trace add up to it. The comparison with the scalar twin is in src/device/conformance.rs.
#include "align.h"

#include "../sim/columns.h"

#include <algorithm>

namespace {

const int matched = 1, mismatch = 4, open = 6, extend = 1, clip = 5;
using codes = std::vector<unsigned>;

unsigned next(uint64_t &state, unsigned below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>(state >> 40) % below;
}

int points(unsigned a, unsigned b) { return a == b && a < 4 ? matched : -mismatch; }

int best_score(const codes &query, const codes &target) {
    const int rows = query.size(), columns = target.size(), width = columns - rows + 1;
    const int never = -1000000;
    std::vector<std::vector<int>> h(rows + 1, std::vector<int>(columns + 1, never)), e = h, f = h;
    int best = never;
    for (int i = 0; i <= rows; i++) {
        for (int j = i; j < i + width; j++) {
            int here = i == 0 ? 0 : -clip;
            if (i > 0 && j > 0) {
                here = std::max(here, h[i - 1][j - 1] + points(query[i - 1], target[j - 1]));
            }
            if (i > 0) {
                e[i][j] = std::max(h[i - 1][j] - open - extend, e[i - 1][j] - extend);
            }
            if (j > 0) {
                f[i][j] = std::max(h[i][j - 1] - open - extend, f[i][j - 1] - extend);
            }
            h[i][j] = std::max({here, e[i][j], f[i][j]});
            best = std::max(best, h[i][j] - (i == rows ? 0 : clip));
        }
    }
    return best;
}

// What the columns of a result are worth.
int recount(const codes &query, const codes &target, const unsigned *result) {
    unsigned q = result[1], t = result[3];
    int sum = q > 0 ? -clip : 0;
    for (int run = int(result[4]) - 1; run >= 0; run--) {
        const unsigned step = result[5 + run] & 3, count = result[5 + run] >> 2;
        sum -= step == 0 ? 0 : open + int(count) * extend;
        for (unsigned i = 0; i < count; i++) {
            sum += step == 0 ? points(query[q], target[t]) : 0;
            q += step != 2;
            t += step != 1;
        }
    }
    return q != result[2] ? -1000000 : q < query.size() ? sum - clip : sum;
}

void append(std::vector<unsigned> &words, const codes &bases) {
    const std::size_t begin = words.size();
    words.resize(begin + (bases.size() + 7) / 8, 0);
    for (std::size_t at = 0; at < bases.size(); at++) {
        words[begin + at / 8] |= bases[at] << (4 * (at % 8));
    }
}

int check(uint64_t seed) {
    codes target(2 + next(seed, 120)), query;
    for (unsigned &base : target) {
        base = next(seed, 5);
    }
    const unsigned length = std::max<unsigned>(1, target.size() - next(seed, 60) % target.size());
    for (unsigned at = 0; query.size() < length; at += 1 + (next(seed, 20) == 0) * next(seed, 5)) {
        const bool changed = at >= target.size() || next(seed, 12) == 0;
        query.push_back(changed ? next(seed, 4) : target[at]);
    }
    const unsigned width = target.size() - query.size() + 1, query_words = (query.size() + 7) / 8;
    std::vector<unsigned> memory = {32, matched, mismatch, open, extend, clip, 0, 0,
                                    0, unsigned(query.size()), query_words, width};
    append(memory, query);
    append(memory, target);
    const unsigned output_at = memory.size();
    memory.resize(output_at + 32);
    align(memory.data(), memory.data(), 1, output_at);
    const unsigned *result = memory.data() + output_at;
    const int score = result[0];
    if (score != best_score(query, target)) {
        return 1;
    }
    return result[4] > 27 || score < 0 || recount(query, target, result) == score ? 0 : 2;
}

} // namespace

int main() {
    for (uint64_t seed = 0; seed < 300; seed++) {
        if (const int wrong = check(seed)) {
            std::fprintf(stderr, "seed %d: %d\n", int(seed), wrong);
            return wrong;
        }
    }
    return 0;
}
