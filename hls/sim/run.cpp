// The HLS kernels as C simulation, for src/device/process.rs: eight words a launch from stdin (kernel,
// threads, its three numbers, the first byte of the results, their bytes, the bytes of the inputs),
// then the inputs; the results to stdout. Kernels that have no form here are not asked for.
#include "../align/align.h"
#include "../otp/otp.h"
#include "../pairhmm/pairhmm.h"
#include "../share/share.h"
#include "../xor/xor.h"

#include "columns.h"

#include <cstdlib>
#include <cstring>

namespace {

using bytes = std::vector<unsigned char>;

// Columns of bytes as words, filled up with rubbish, and back.
template <int BITS> std::vector<ap_uint<BITS>> words_of(const unsigned char *from, std::size_t count) {
    std::vector<ap_uint<BITS>> words((8 * count + BITS - 1) / BITS);
    for (std::size_t at = 0; at < words.size() * BITS / 8; at++) {
        words[at * 8 / BITS].range(at * 8 % BITS + 7, at * 8 % BITS) = at < count ? from[at] : 0xee;
    }
    return words;
}

template <int BITS>
void put(const std::vector<ap_uint<BITS>> &words, unsigned char *to, std::size_t count) {
    for (std::size_t at = 0; at < count; at++) {
        to[at] = words[at * 8 / BITS].range(at * 8 % BITS + 7, at * 8 % BITS).to_uint();
    }
}

void run_xor(bytes &memory, const unsigned numbers[3]) {
    const std::size_t stride = 16 * std::size_t(numbers[0]);
    const auto data = words_of<512>(memory.data(), stride);
    const auto pad = words_of<512>(memory.data() + stride, stride);
    std::vector<word> out(data.size());
    xor_pad(data.data(), pad.data(), out.data(), out.size());
    put(out, memory.data(), stride);
}

void run_share(bytes &memory, const unsigned numbers[3]) {
    const std::size_t stride = 16 * std::size_t(numbers[0]);
    std::vector<column> in, out;
    for (int i = 0; i < 4; i++) {
        in.push_back(words_of<512>(memory.data() + i * stride, stride));
        out.emplace_back(in[0].size());
    }
    share(in[0].data(), in[1].data(), in[2].data(), in[3].data(), out[0].data(), out[1].data(),
          out[2].data(), out[3].data(), in[0].size(), numbers[1], numbers[2]);
    for (unsigned i = 0; i < numbers[1]; i++) {
        put(out[i], memory.data() + i * stride, stride);
    }
}

void run_otp(bytes &memory, const unsigned numbers[3]) {
    const std::size_t data_bytes = (numbers[0] + 15) / 16 * 16, sums_bytes = 16 * numbers[1];
    unsigned char *sums_at = memory.data() + data_bytes, *power_at = sums_at + sums_bytes;
    auto data = words_of<128>(memory.data(), data_bytes);
    const auto power = words_of<128>(power_at, 16), pad = words_of<128>(power_at + 16, data_bytes);
    std::vector<block> sums(numbers[1]);
    otp(data.data(), pad.data(), power.data(), data.data(), sums.data(), numbers[0], numbers[1],
        numbers[2]);
    put(data, memory.data(), data_bytes);
    put(sums, sums_at, sums_bytes);
}

template <void (*kernel)(const unsigned int *, unsigned int *, unsigned, unsigned)>
void run_jobs(bytes &memory, const unsigned numbers[3]) {
    auto words = reinterpret_cast<unsigned int *>(memory.data());
    kernel(words, words, numbers[0], numbers[1]);
}

// By the number that src/device/lane.rs gives a kernel.
void (*const kernels[])(bytes &, const unsigned[3]) = {
    run_xor, run_share, run_otp, run_jobs<align>, run_jobs<pairhmm>,
};

} // namespace

int main(int count, char **words) {
    bytes memory(count > 1 ? std::strtoul(words[1], nullptr, 10) : 1 << 26, 0xa5);
    unsigned head[8];
    while (std::fread(head, sizeof head, 1, stdin) == 1) {
        const unsigned kernel = head[0], from = head[5], results = head[6], up = head[7];
        if (kernel >= sizeof kernels / sizeof *kernels || up > memory.size() ||
            std::fread(memory.data(), 1, up, stdin) != up) {
            return 65;
        }
        kernels[kernel](memory, head + 2);
        if (std::fwrite(memory.data() + from, 1, results, stdout) != results ||
            std::fflush(stdout) != 0) {
            return 66;
        }
    }
    return 0;
}
