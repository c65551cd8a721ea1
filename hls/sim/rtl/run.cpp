// The designs in registers, cycle by cycle, for src/device/process.rs: launches as in hls/sim/run.cpp, of
// the pad (32 lanes) and the alignment. What surrounds the designs, reading jobs and following
// directions back, is done here. Cycles other than those claimed are an error.
//
// `run cycles` says how many cycles the designs took for shapes of a few sizes, a line each: the blocks of
// a pad, or the rows and diagonals of an alignment, then the cycles.
#include "Vtop.h"
#include "verilated.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

double sc_time_stamp() { return 0; }

namespace {

const unsigned otp_lanes = 32, align_cells = 64, align_rows_max = 1024;
Vtop *design;

void tick() {
    design->clock = 1;
    design->eval();
    design->clock = 0;
    design->eval();
}

void claim(const char *what, uint64_t cycles, uint64_t claimed) {
    if (cycles != claimed) {
        std::fprintf(stderr, "%s took %llu cycles and not %llu\n", what,
                     static_cast<unsigned long long>(cycles),
                     static_cast<unsigned long long>(claimed));
        std::exit(70);
    }
}

// One block a cycle, after the zeros that stand before the first.
uint64_t run_otp(unsigned char *memory, const unsigned numbers[3]) {
    const unsigned bytes = numbers[0], lanes = numbers[1], blocks = (bytes + 15) / 16;
    if (lanes != otp_lanes) {
        std::exit(64);
    }
    unsigned char *sums = memory + 16 * std::size_t(blocks);
    const unsigned char *power = sums + 16 * lanes, *pad = power + 16;
    std::memcpy(design->otp_power.data(), power, 16);
    design->otp_opens = numbers[2] & 1;
    design->otp_clear = 1;
    design->otp_valid = 0;
    tick();
    design->otp_clear = 0;
    design->otp_valid = 1;
    const unsigned missing = (lanes - blocks % lanes) % lanes;
    uint64_t cycles = 0;
    for (unsigned at = 0; at < blocks + missing; at++, cycles++) {
        const bool there = at >= missing;
        const std::size_t own = there ? at - missing : 0;
        const unsigned left = there ? bytes - 16 * own : 0;
        std::memcpy(design->otp_data.data(), memory + 16 * own, 16);
        std::memcpy(design->otp_pad.data(), pad + 16 * own, 16);
        design->otp_keep = left >= 16 ? 0xffff : (1u << left) - 1;
        design->eval();
        if (there) {
            std::memcpy(memory + 16 * own, design->otp_result.data(), 16);
        }
        std::memcpy(sums + 16 * (at % lanes), design->otp_sum.data(), 16);
        tick();
    }
    design->otp_valid = 0;
    claim("the pad", cycles, blocks + missing);
    return cycles;
}

struct Filled {
    uint64_t cycles;
    std::vector<unsigned char> directions;
    short score;
    unsigned row, diagonal;
};

unsigned nibble(const unsigned *words, unsigned at) { return words[at / 8] >> (4 * (at % 8)) & 15; }

unsigned lane(const uint32_t *words, unsigned at) { return words[at / 2] >> (16 * (at % 2)) & 0xffff; }

Filled fill(const unsigned *query, const unsigned *target, unsigned rows, unsigned width,
            short clip) {
    Filled filled = {0, std::vector<unsigned char>(std::size_t(rows) * width), short(-clip), 0, 0};
    design->align_rows = rows;
    design->align_width = width;
    std::memset(design->align_first_targets.data(), 0x44, align_cells / 2);
    for (unsigned d = 0; d < width; d++) {
        auto bytes = reinterpret_cast<unsigned char *>(design->align_first_targets.data());
        const unsigned shift = 4 * (d % 2);
        bytes[d / 2] = (bytes[d / 2] & ~(15 << shift)) | nibble(target, d) << shift;
    }
    design->align_start = 1;
    tick();
    design->align_start = 0;
    uint64_t cycles = 0;
    for (; design->align_busy; cycles++) {
        const unsigned cycle = design->align_cycle;
        const unsigned own = cycle / 2, last = (cycle + 1 - width) / 2;
        design->align_query = own >= 1 && own <= rows ? nibble(query, own - 1) : 4;
        const bool there = cycle + 1 >= width + 2 && last <= rows;
        design->align_target = there ? nibble(target, last + width - 2) : 4;
        design->eval();
        for (unsigned d = 0; d < width; d++) {
            if (design->align_active >> d & 1) {
                const unsigned row = (cycle - d) / 2;
                filled.directions[std::size_t(row - 1) * width + d] =
                    nibble(design->align_directions.data(), d);
            }
        }
        tick();
    }
    claim("the alignment", cycles, 2 * rows + width - 2);
    filled.cycles = cycles;
    for (unsigned d = 0; d < width; d++) {
        const short score = lane(design->align_end_scores.data(), d);
        const unsigned row = lane(design->align_end_rows.data(), d);
        if (score > filled.score || (score == filled.score && row > filled.row)) {
            filled.score = score;
            filled.row = row;
            filled.diagonal = d;
        }
    }
    return filled;
}

void trace(const Filled &filled, unsigned width, unsigned *result) {
    unsigned row = filled.row, d = filled.diagonal, runs = 0, kind = 3, length = 0, gap = 0;
    const auto put = [&] {
        if (length > 0 && runs < 27) {
            result[5 + runs] = kind | length << 2;
        }
        runs += length > 0;
    };
    while (row > 0) {
        const unsigned direction = filled.directions[std::size_t(row - 1) * width + d];
        const unsigned from = gap != 0 ? gap : direction & 3;
        if (from == 1) {
            break;
        }
        const unsigned next = from == 0 ? 0 : from == 2 ? 2 : 1;
        if (next != kind) {
            put();
            kind = next;
            length = 0;
        }
        length += 1;
        gap = from == 0 || (direction & (from == 2 ? 4 : 8)) != 0 ? 0 : from;
        row -= from != 2;
        d = from == 3 ? d + 1 : from == 2 ? d - 1 : d;
    }
    put();
    result[0] = filled.score;
    result[1] = row;
    result[2] = filled.row;
    result[3] = row + d;
    result[4] = runs;
}

void run_align(unsigned char *memory, const unsigned numbers[3]) {
    auto words = reinterpret_cast<unsigned *>(memory);
    const unsigned jobs = numbers[0];
    design->align_matched = words[1];
    design->align_mismatch = words[2];
    design->align_open = words[3];
    design->align_extend = words[4];
    design->align_clip = words[5];
    for (unsigned job = 0; job < jobs; job++) {
        const unsigned *entry = words + 8 + 4 * job, *data = words + 8 + 4 * jobs;
        unsigned *result = words + numbers[1] + words[0] * job;
        if (entry[1] > align_rows_max || entry[3] > align_cells) {
            result[4] = 0xffffffff;
            continue;
        }
        trace(fill(data + entry[0], data + entry[2], entry[1], entry[3], words[5]), entry[3], result);
    }
}

void say_cycles() {
    for (const unsigned blocks : {32, 1024, 65536}) {
        std::vector<unsigned char> memory(16 * (2 * std::size_t(blocks) + otp_lanes + 1));
        const unsigned numbers[3] = {16 * blocks, otp_lanes, 2};
        std::printf("otp %u %llu\n", blocks,
                    static_cast<unsigned long long>(run_otp(memory.data(), numbers)));
    }
    const unsigned shapes[][2] = {{1, 2}, {150, 32}, {150, 64}, {1000, 21}};
    const std::vector<unsigned> codes(200);
    for (const auto [rows, width] : shapes) {
        const Filled filled = fill(codes.data(), codes.data(), rows, width, 5);
        std::printf("align %u %u %llu\n", rows, width, static_cast<unsigned long long>(filled.cycles));
    }
}

} // namespace

int main(int count, char **words) {
    if (count > 1 && std::strcmp(words[1], "cycles") == 0) {
        design = new Vtop;
        design->eval();
        say_cycles();
        return 0;
    }
    std::vector<unsigned char> memory(count > 1 ? std::strtoul(words[1], nullptr, 10) : 1 << 26);
    design = new Vtop;
    // The clock has been low before it first rises.
    design->eval();
    unsigned head[8];
    while (std::fread(head, sizeof head, 1, stdin) == 1) {
        const unsigned from = head[5], results = head[6], up = head[7];
        if ((head[0] != 2 && head[0] != 3) || up > memory.size() ||
            std::fread(memory.data(), 1, up, stdin) != up) {
            return 65;
        }
        if (head[0] == 2) {
            run_otp(memory.data(), head + 2);
        } else {
            run_align(memory.data(), head + 2);
        }
        if (std::fwrite(memory.data() + from, 1, results, stdout) != results ||
            std::fflush(stdout) != 0) {
            return 66;
        }
    }
    return 0;
}
