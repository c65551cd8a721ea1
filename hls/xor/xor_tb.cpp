// Test bench of xor.cpp. Without arguments: a pad hides, and taken twice gives the data back. With
// `WORDS`: data and pad from stdin, their sum to stdout, for a comparison with the scalar twin.
#include "xor.h"

#include "../sim/columns.h"

#include <cstdlib>

namespace {

int check(std::size_t words) {
    const column data = noise(words, 1), pad = noise(words, 2);
    column hidden(words), opened(words), bare(words);
    xor_pad(data.data(), pad.data(), hidden.data(), words);
    xor_pad(hidden.data(), pad.data(), opened.data(), words);
    xor_pad(hidden.data(), data.data(), bare.data(), words);
    return hidden != data && opened == data && bare == pad ? 0 : 1;
}

} // namespace

int main(int count, char **words) {
    if (count == 1) {
        return check(1) + check(1000);
    }
    column data(std::strtoul(words[1], nullptr, 10)), pad(data.size()), out(data.size());
    if (!read_column(stdin, data) || !read_column(stdin, pad)) {
        return 65;
    }
    xor_pad(data.data(), pad.data(), out.data(), out.size());
    return write_column(stdout, out) ? 0 : 66;
}
