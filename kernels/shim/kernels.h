// Every kernel, by the number and the name that src/device/lane.rs gives it.
#pragma once

#include "cuda.h"

#include "../xor.cu"

#include "../align.cu"
#include "../lookup.cu"
#include "../otp.cu"
#include "../pack.cu"
#include "../pairhmm.cu"
#include "../share.cu"
#include "../ungapped.cu"

struct Kernel {
    const char *name;
    // Threads of a block.
    unsigned int block;
    void (*run)(unsigned int blocks, unsigned int block, void *memory,
                const unsigned int numbers[3], const unsigned int *table);
    bool reads_table = false;
};

// Runs a kernel of which only the memory's type differs from that of others.
template <typename Word, void (*kernel)(Word *, unsigned int, unsigned int, unsigned int)>
void run_kernel(unsigned int blocks, unsigned int block, void *memory,
                const unsigned int numbers[3], const unsigned int *) {
    launch(blocks, block, kernel, static_cast<Word *>(memory), numbers[0], numbers[1], numbers[2]);
}

// Runs a kernel that reads a table.
template <void (*kernel)(unsigned int *, unsigned int, unsigned int, unsigned int,
                         const unsigned int *)>
void run_kernel(unsigned int blocks, unsigned int block, void *memory,
                const unsigned int numbers[3], const unsigned int *table) {
    launch(blocks, block, kernel, static_cast<unsigned int *>(memory), numbers[0], numbers[1],
           numbers[2], table);
}

const Kernel kernels[] = {
    {"xor_pad", 256, run_kernel<uint4, xor_pad>},
    {"share", 256, run_kernel<uint4, share>},
    {"otp", 256, run_kernel<uint4, otp>},
    {"align", 32, run_kernel<unsigned int, align>},
    {"pairhmm", 32, run_kernel<unsigned int, pairhmm>},
    {"pack", 64, run_kernel<unsigned int, pack>},
    {"ungapped", 64, run_kernel<ungapped>, true},
    {"lookup", 64, run_kernel<lookup>, true},
};
