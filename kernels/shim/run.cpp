// Runs one kernel on a CPU: `run share|xor STRIDE OUTPUTS ROWS`, the columns from stdin, all of them
// to stdout as the kernel left them.
#include "cuda.h"

#include "../share.cu"
#include "../xor.cu"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

int main(int count, char **words) {
    if (count != 5) {
        return 2;
    }
    const bool sharing = std::strcmp(words[1], "share") == 0;
    const unsigned int stride = std::strtoul(words[2], nullptr, 10);
    const unsigned int outputs = std::strtoul(words[3], nullptr, 10);
    const unsigned int rows = std::strtoul(words[4], nullptr, 10);
    std::vector<uint4> columns((sharing ? 4 : 2) * static_cast<size_t>(stride));
    if (std::fread(columns.data(), sizeof(uint4), columns.size(), stdin) != columns.size()) {
        return 3;
    }
    const unsigned int threads = 256;
    launch((stride + threads - 1) / threads, threads, sharing ? share : xor_pad, columns.data(),
           stride, outputs, rows);
    return std::fwrite(columns.data(), sizeof(uint4), columns.size(), stdout) == columns.size() ? 0
                                                                                               : 4;
}
