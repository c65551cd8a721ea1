// Test bench of pairhmm.cpp: paths whose penalty is known. The comparison with the scalar twin is in
// src/device/conformance.rs.
#include "pairhmm.h"

#include <cstdio>
#include <string>
#include <vector>

namespace {

const unsigned agree = 1, differ = 1000, open = 640, extend = 90, cut = 1500;

unsigned code(char letter) { return std::string("ACGTN").find(letter); }

// The penalty of a read on a haplotype, on diagonals -8 to 15.
int penalty(const std::string &read, const std::string &haplotype) {
    std::vector<unsigned> memory(64, agree | differ << 16);
    memory[0] = 1;
    const unsigned read_words = (read.size() + 1) / 2;
    const std::vector<unsigned> entry = {0, unsigned(read.size()), read_words,
                                         unsigned(haplotype.size()), unsigned(-8), 24, cut, 0};
    memory.insert(memory.end(), entry.begin(), entry.end());
    const std::size_t data = memory.size();
    memory.resize(data + read_words, 0);
    for (std::size_t at = 0; at < read.size(); at++) {
        memory[data + at / 2] |= (code(read[at]) | 30u << 8) << (16 * (at % 2));
    }
    for (const char letter : haplotype) {
        memory.push_back(code(letter) | open << 3 | extend << 17);
    }
    const unsigned output_at = memory.size();
    memory.push_back(0);
    pairhmm(memory.data(), memory.data(), 1, output_at);
    return static_cast<int>(memory[output_at]);
}

int expect(const char *what, int have, int want) {
    if (have != want) {
        std::fprintf(stderr, "%s: %d and not %d\n", what, have, want);
    }
    return have != want;
}

} // namespace

int main() {
    const std::string read = "ACGTACGGTCATTGACCATT", around = "TT" + read + "CC";
    int wrong = expect("equal", penalty(read, around), 20 * agree);
    wrong += expect("one base", penalty("ACGTACGGTCCTTGACCATT", around), 19 * agree + differ);
    wrong += expect("a base too few", penalty("ACGTACGGTCTTGACCATT", around), 19 * agree + open);
    wrong += expect("two too many", penalty("ACGTACGGTCAGGTTGACCATT", around),
                    20 * agree + open + extend);
    wrong += expect("an unknown base", penalty("ACGTACGGTCANTGACCATT", around), 20 * agree);
    wrong += expect("nothing alike", penalty("AAAAAAAAAAAA", "CCCCCCCCCCCCCC"), cut);
    return wrong;
}
