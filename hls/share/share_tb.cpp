// Test bench of share.cpp. Without arguments: the identities of the scheme on noise. With
// `WORDS OUTPUTS ROWS`: four columns from stdin, the four outputs to stdout, for a comparison with
// the scalar twin.
#include "share.h"

#include "../sim/columns.h"

#include <cstdlib>

namespace {

// The rows of split, and of restoring from A and C, from B and C, from A and B.
const unsigned split = 0xade5, from_ac = 0xe5, from_bc = 0xad, from_ab = 0xdb;

void run(const column in[4], column out[4], unsigned outputs, unsigned rows) {
    share(in[0].data(), in[1].data(), in[2].data(), in[3].data(), out[0].data(), out[1].data(),
          out[2].data(), out[3].data(), in[0].size(), outputs, rows);
}

bool restores(const column &x1, const column &x2, const column &y1, const column &y2,
              unsigned rows, const column secret[2]) {
    const column in[4] = {x1, x2, y1, y2};
    const column unused = noise(x1.size(), 9);
    column out[4] = {unused, unused, unused, unused};
    run(in, out, 2, rows);
    return out[0] == secret[0] && out[1] == secret[1] && out[2] == unused && out[3] == unused;
}

int check(std::size_t words) {
    const column s[2] = {noise(words, 1), noise(words, 2)};
    const column c[2] = {noise(words, 3), noise(words, 4)};
    const column in[4] = {s[0], s[1], c[0], c[1]};
    column out[4] = {column(words), column(words), column(words), column(words)};
    run(in, out, 4, split);
    const column *a = out, *b = out + 2;
    for (std::size_t at = 0; at < words; at++) {
        if (a[0][at] != (s[0][at] ^ c[0][at]) || b[1][at] != (s[1][at] ^ c[1][at])) {
            return 1;
        }
        // A ^ B ^ swap(C) = 0.
        if ((a[0][at] ^ b[0][at]) != c[1][at] || (a[1][at] ^ b[1][at]) != c[0][at]) {
            return 2;
        }
    }
    const bool good = restores(a[0], a[1], c[0], c[1], from_ac, s) &&
                      restores(b[0], b[1], c[0], c[1], from_bc, s) &&
                      restores(a[0], a[1], b[0], b[1], from_ab, s);
    return good ? 0 : 3;
}

} // namespace

int main(int count, char **words) {
    if (count == 1) {
        const int edge = check(1);
        return edge != 0 ? edge : check(1000);
    }
    if (count != 4) {
        return 64;
    }
    const column empty(std::strtoul(words[1], nullptr, 10));
    column in[4] = {empty, empty, empty, empty}, out[4] = {empty, empty, empty, empty};
    for (column &each : in) {
        if (!read_column(stdin, each)) {
            return 65;
        }
    }
    run(in, out, std::strtoul(words[2], nullptr, 10), std::strtoul(words[3], nullptr, 10));
    for (const column &each : out) {
        if (!write_column(stdout, each)) {
            return 66;
        }
    }
    return 0;
}
