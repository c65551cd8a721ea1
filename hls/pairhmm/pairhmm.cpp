// The most probable path of a pair hidden Markov model in fixed point. The jobs and results of
// kernels/pairhmm.cu; defined by src/kernel/pairhmm.rs.
//
// A systolic array as in hls/align: the cell of diagonal `d` computes row `i` at cycle `2 i + d`. The
// haplotype's bases wander from the right to the left with their gap penalties, the read's from the
// left to the right with theirs, and with each row the least penalty seen so far.
#include "pairhmm.h"

namespace {

const int header_words = 64, entry_words = 8, penalties_at = 1;
const int columns_max = pairhmm_rows_max + pairhmm_cells;
const short never = 16383;
// A haplotype base beyond its ends: differs from every base, and has no gaps.
const unsigned int outside = 5u | 16383u << 3 | 16383u << 17;
// What a job that does not fit the array gets.
const unsigned int given_up = 0x80000000u;

struct Job {
    unsigned rows, width;
    int limit;
    bool fits;
};

// A read's base with its penalties.
struct Read {
    unsigned char base;
    short agree, differ;
};

// What a cell keeps from cycle to cycle, all of its last row.
struct Cell {
    short all, inserted, matched, deleted;
    // Least penalty of this row, up to this cell.
    short best;
    Read read;
    unsigned int haplotype;
};

short least(short a, short b) {
#pragma HLS INLINE
    return a < b ? a : b;
}

void load(const unsigned int *input, const unsigned int header[header_words], unsigned job,
          unsigned jobs, Job &read_job, Read read[pairhmm_rows_max],
          unsigned int haplotype[columns_max]) {
    const unsigned int *entry = input + header_words + entry_words * job;
    const unsigned int *data = input + header_words + entry_words * jobs;
    const unsigned read_at = entry[0], haplotype_at = entry[2], bases = entry[3], low = entry[4];
    read_job.rows = entry[1];
    read_job.width = entry[5];
    read_job.limit = static_cast<int>(entry[6]);
    read_job.fits = read_job.rows <= pairhmm_rows_max && read_job.width <= pairhmm_cells &&
                    read_job.width > 0;
    if (!read_job.fits) {
        return;
    }
load_read:
    for (unsigned row = 0; row < read_job.rows; row++) {
#pragma HLS PIPELINE II=1
        const unsigned int both = data[read_at + row / 2] >> (16 * (row % 2)) & 0xffffu;
        const unsigned int penalties = header[(penalties_at + (both >> 8)) % header_words];
        const short agree = penalties & 0xffffu;
        const unsigned char base = both & 0xffu;
        read[row].base = base;
        read[row].agree = agree;
        read[row].differ = base > 3 ? agree : short(penalties >> 16);
    }
load_haplotype:
    for (unsigned at = 0; at < read_job.rows + read_job.width; at++) {
#pragma HLS PIPELINE II=1
        // Positions before the haplotype's begin become too large.
        const unsigned on = low + at;
        haplotype[at] = on < bases ? data[haplotype_at + on] : outside;
    }
}

// The state of one cell in its next row, from what its neighbours had one cycle before.
void step(Cell &cell, const Cell &left, const Cell &right, bool first, bool last) {
#pragma HLS INLINE
    const short open = cell.haplotype >> 3 & 16383, extend = cell.haplotype >> 17 & 16383;
    const bool equal = (cell.haplotype & 7) == cell.read.base;
    const short matched =
        least(cell.all + (equal ? cell.read.agree : cell.read.differ), never);
    const short inserted = least(
        least((last ? never : right.all) + open, (last ? never : right.inserted) + extend), never);
    const short deleted = least(
        least((first ? never : left.matched) + open, (first ? never : left.deleted) + extend),
        never);
    cell.all = least(least(matched, inserted), deleted);
    cell.inserted = inserted;
    cell.matched = matched;
    cell.deleted = deleted;
    cell.best = least(first ? never : left.best, cell.all);
}

void fill(const Job &job, const Read read[pairhmm_rows_max],
          const unsigned int haplotype[columns_max], unsigned int &result) {
    Cell cells[pairhmm_cells];
#pragma HLS ARRAY_PARTITION variable=cells complete
    result = job.fits ? 0 : given_up;
    if (!job.fits) {
        return;
    }
start:
    for (unsigned d = 0; d < pairhmm_cells; d++) {
#pragma HLS PIPELINE II=1
        const unsigned int base = d < job.width ? haplotype[d] : outside;
        cells[d] = {0, never, never, never, never, {4, 0, 0}, base};
    }
    bool over = false;
fill:
    for (unsigned cycle = 2; cycle < 2 * job.rows + job.width; cycle++) {
#pragma HLS PIPELINE II=1
        // All cells see what their neighbours had before this cycle.
        Cell before[pairhmm_cells];
#pragma HLS ARRAY_PARTITION variable=before complete
        for (int d = 0; d < pairhmm_cells; d++) {
#pragma HLS UNROLL
            before[d] = cells[d];
        }
        const Read next_read = read[(cycle - 2) / 2 % pairhmm_rows_max];
        const unsigned last_row = (cycle - job.width + 1) / 2;
        const unsigned int next_base = haplotype[(last_row + job.width - 2) % columns_max];
        for (unsigned d = 0; d < pairhmm_cells; d++) {
#pragma HLS UNROLL
            const unsigned row = (cycle - d) / 2;
            if (cycle >= d + 2 && (cycle - d) % 2 == 0 && row <= job.rows && d < job.width) {
                const bool first = d == 0, last = d + 1 == job.width;
                cells[d].read = first ? next_read : before[d - 1].read;
                // The first row's base was there from the start.
                if (row > 1) {
                    cells[d].haplotype = last ? next_base : before[d + 1].haplotype;
                }
                step(cells[d], before[first ? 0 : d - 1],
                     before[d + 1 < pairhmm_cells ? d + 1 : d], first, last);
                if (last && !over) {
                    over = cells[d].best >= job.limit;
                    result = over ? job.limit : int(cells[d].best);
                }
            }
        }
    }
}

void compute(const unsigned int *input, const unsigned int header[header_words],
             unsigned int *output, unsigned jobs, unsigned output_at) {
jobs:
    for (unsigned job = 0; job < jobs; job++) {
#pragma HLS DATAFLOW
        Job read_job;
        Read read[pairhmm_rows_max];
        unsigned int haplotype[columns_max], result;
        load(input, header, job, jobs, read_job, read, haplotype);
        fill(read_job, read, haplotype, result);
        output[output_at + job] = result;
    }
}

} // namespace

// `input`: header, entries and data; `output`: the same memory, where results go from word `output_at`.
void pairhmm(const unsigned int *input, unsigned int *output, unsigned jobs, unsigned output_at) {
#pragma HLS INTERFACE m_axi port=input bundle=gmem0
#pragma HLS INTERFACE m_axi port=output bundle=gmem1
    // A port gives one word a cycle, and the reads themselves take it: the penalties are kept here.
    unsigned int header[header_words];
load_header:
    for (int at = 0; at < header_words; at++) {
#pragma HLS PIPELINE II=1
        header[at] = input[at];
    }
    compute(input, header, output, jobs, output_at);
}
