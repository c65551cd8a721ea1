// Columns of words for test benches: from and to files, and noise.
#pragma once

#include <cstdint>
#include <cstdio>
#include <vector>

#include <ap_int.h>

using word = ap_uint<512>;
using column = std::vector<word>;

// Reads a column; false when `file` ends early. Bytes lie in a word as in memory, the lowest first.
inline bool read_column(std::FILE *file, column &words) {
    for (word &each : words) {
        uint64_t limbs[8];
        if (std::fread(limbs, sizeof limbs, 1, file) != 1) {
            return false;
        }
        for (int i = 0; i < 8; i++) {
            each.range(64 * i + 63, 64 * i) = limbs[i];
        }
    }
    return true;
}

inline bool write_column(std::FILE *file, const column &words) {
    for (const word &each : words) {
        uint64_t limbs[8];
        for (int i = 0; i < 8; i++) {
            limbs[i] = each.range(64 * i + 63, 64 * i).to_uint64();
        }
        if (std::fwrite(limbs, sizeof limbs, 1, file) != 1) {
            return false;
        }
    }
    return true;
}

// splitmix64.
inline column noise(std::size_t words, uint64_t seed) {
    column filled(words);
    for (word &each : filled) {
        for (int i = 0; i < 8; i++) {
            uint64_t z = seed += 0x9e3779b97f4a7c15;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            each.range(64 * i + 63, 64 * i) = z ^ (z >> 31);
        }
    }
    return filled;
}
