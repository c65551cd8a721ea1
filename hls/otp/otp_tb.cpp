// Test bench of otp.cpp: the answer of RFC 8452, appendix A, and that opening undoes sealing with the
// same sums, however many lanes there are.
#include "otp.h"

#include <vector>

namespace {

// From its upper and its lower half; bytes of the standard from the last to the first.
block number(uint64_t high, uint64_t low) { return block(high) << 64 | block(low); }

// The sum of two blocks and one of zeros in one lane is the hash of the two.
int known_answer() {
    const block key = number(0x7b754bba26f8311dull, 0x7642925847936225ull), answer = number(0x7eb7e5f56c86b7e5ull, 0xfa1961847bb4a3f7ull);
    block data[3] = {number(0x62a2012dbb621740ull, 0xb6df838c66954f4full),
                     number(0x62f3c9d3205fe4bbull, 0x06d02127dd4da2d1ull), 0};
    const block pad[3] = {0, 0, 0};
    block sum;
    otp(data, pad, &key, data, &sum, 48, 1, 1);
    return sum == answer ? 0 : 4;
}

int round_trip(unsigned bytes, unsigned lanes) {
    const unsigned blocks = (bytes + 15) / 16;
    std::vector<block> data(blocks), pad(blocks), sums(lanes), opened_sums(lanes);
    for (unsigned at = 0; at < blocks; at++) {
        data[at] = number(at * 0x9e3779b97f4a7c15ull, ~uint64_t(at));
        pad[at] = number(at ^ 0xbf58476d1ce4e5b9ull, at * 0x94d049bb133111ebull);
    }
    const std::vector<block> before = data;
    const block power = number(0x0123456789abcdefull, 0xfedcba9876543210ull);
    otp(data.data(), pad.data(), &power, data.data(), sums.data(), bytes, lanes, 0);
    if (blocks > 0 && data == before) {
        return 1;
    }
    otp(data.data(), pad.data(), &power, data.data(), opened_sums.data(), bytes, lanes, 1);
    return data == before && sums == opened_sums ? 0 : 2;
}

} // namespace

int main() {
    return known_answer() + round_trip(5000, 1) + round_trip(5000, 33) + round_trip(17, 64);
}
