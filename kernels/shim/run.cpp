// Runs the kernels on a CPU, for src/device/process.rs: eight words a launch from stdin (kernel,
// threads, its three numbers, the first byte of the results, their bytes, the bytes of the inputs),
// then the inputs; the results to stdout. All ones for the kernel: what follows is the table.
#include "kernels.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

// Room for columns, results and scratch, as a lane of that size has them; full of rubbish.
static std::vector<unsigned int> memory;

int main(int count, char **words) {
#ifdef EXIT_AT_ONCE
    return 69; // A card that was lost.
#endif
    memory.assign(count > 1 ? std::strtoul(words[1], nullptr, 10) / 4 : 1 << 24, 0xa5a5a5a5);
    std::vector<unsigned int> table;
    unsigned int head[8];
    while (std::fread(head, sizeof head, 1, stdin) == 1) {
        const unsigned int from = head[5], bytes = head[6], up = head[7];
        if (head[0] == 0xffffffffu) {
            table.assign(up / 4, 0);
            if (std::fread(table.data(), 1, up, stdin) != up) {
                return 65;
            }
            continue;
        }
        char *bytes_of_memory = reinterpret_cast<char *>(memory.data());
        if (head[0] >= sizeof kernels / sizeof *kernels || up > 4 * memory.size() ||
            std::fread(bytes_of_memory, 1, up, stdin) != up) {
            return 65;
        }
        const Kernel &kernel = kernels[head[0]];
        kernel.run((head[1] + kernel.block - 1) / kernel.block, kernel.block, memory.data(),
                   head + 2, table.data());
        if (std::fwrite(bytes_of_memory + from, 1, bytes, stdout) != bytes ||
            std::fflush(stdout) != 0) {
            return 66;
        }
    }
    return 0;
}
