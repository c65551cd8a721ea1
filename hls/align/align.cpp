// Banded affine-gap alignment with traceback. The jobs and results of kernels/align.cu; defined by
// src/kernel/align.rs.
//
// A systolic array: a cell for each diagonal computes a state every second cycle, row `i` at cycle
// `2 i + d`. What a state needs was then computed by its neighbours one cycle before: the deletion on
// the left in the same row, the insertion on the right in the row above. Target bases wander from the
// right to the left, query bases from the left to the right. Loading, the array and the trace of three
// jobs run beside each other.
#include "align.h"

#include <hls_stream.h>

namespace {

const int header_words = 8, entry_words = 4, runs_max = 27;
const short never = -20000;
const unsigned char from_pair = 0, from_start = 1, from_deletion = 2, from_insertion = 3;
const unsigned char deletion_opened = 4, insertion_opened = 8;
// What a job that does not fit the array gets for a number of runs.
const unsigned int given_up = 0xffffffffu;

struct Job {
    unsigned rows, width;
    short matched, mismatch, open, extend, clip;
    bool fits;
};

struct End {
    short score;
    unsigned row, diagonal;
};

// What a cell keeps from cycle to cycle.
struct Cell {
    // Of its last row: best score, insertion; deletion of the state on its right.
    short best, insertion, deletion;
    bool deletion_was_opened;
    unsigned char query, target;
    End end;
};

unsigned char nibble(const unsigned int words[], unsigned at) {
#pragma HLS INLINE
    return words[at / 8] >> (4 * (at % 8)) & 15;
}

// Reads a job's entry and its sequences.
void load(const unsigned int *input, unsigned job, unsigned jobs, Job &read,
          unsigned int query[align_rows_max / 8],
          unsigned int target[(align_rows_max + align_cells) / 8 + 1]) {
    const unsigned int *entry = input + header_words + entry_words * job;
    const unsigned int *data = input + header_words + entry_words * jobs;
    const unsigned query_at = entry[0], target_at = entry[2];
    read.rows = entry[1];
    read.width = entry[3];
    read.matched = input[1];
    read.mismatch = input[2];
    read.open = input[3];
    read.extend = input[4];
    read.clip = input[5];
    read.fits = read.rows <= align_rows_max && read.width <= align_cells;
    if (!read.fits) {
        return;
    }
load_query:
    for (unsigned at = 0; at < (read.rows + 7) / 8; at++) {
#pragma HLS PIPELINE II=1
        query[at] = data[query_at + at];
    }
load_target:
    for (unsigned at = 0; at < (read.rows + read.width + 6) / 8; at++) {
#pragma HLS PIPELINE II=1
        target[at] = data[target_at + at];
    }
}

// The state of one cell in `row`, from what its neighbours had one cycle before; gives its direction.
unsigned char step(Cell &cell, const Cell &left, const Cell &right, const Job &job, unsigned row,
                   unsigned d) {
#pragma HLS INLINE
    const short open = job.open + job.extend;
    const short right_best = d + 1 < job.width ? right.best : never;
    const short right_insertion = d + 1 < job.width ? right.insertion : never;
    const short by_opening = right_best - open, by_extending = right_insertion - job.extend;
    const short insertion = by_opening >= by_extending ? by_opening : by_extending;
    const short deletion = d > 0 ? left.deletion : never;
    const bool equal = cell.query == cell.target && cell.query < 4;
    const short paired = cell.best + (equal ? job.matched : short(-job.mismatch));
    short best = paired, from = from_pair;
    if (-job.clip > best) {
        best = -job.clip;
        from = from_start;
    }
    if (deletion > best) {
        best = deletion;
        from = from_deletion;
    }
    if (insertion > best) {
        best = insertion;
        from = from_insertion;
    }
    const unsigned char direction = from |
                                    (d > 0 && left.deletion_was_opened ? deletion_opened : 0) |
                                    (by_opening >= by_extending ? insertion_opened : 0);
    cell.best = best;
    cell.insertion = insertion;
    const short opened = best - open, extended = deletion - job.extend;
    cell.deletion_was_opened = opened >= extended;
    cell.deletion = opened >= extended ? opened : extended;
    // Of equal ends the one furthest right is taken.
    const short score = best - (row == job.rows ? short(0) : job.clip);
    if (score >= cell.end.score) {
        cell.end.score = score;
        cell.end.row = row;
        cell.end.diagonal = d;
    }
    return direction;
}

// Runs the array over a job: the directions of all states, and the best end.
void fill(const Job &job, const unsigned int query[align_rows_max / 8],
          const unsigned int target[(align_rows_max + align_cells) / 8 + 1],
          unsigned char directions[align_rows_max][align_cells], End &end) {
    Cell cells[align_cells];
#pragma HLS ARRAY_PARTITION variable=cells complete
    if (!job.fits) {
        return;
    }
start:
    for (unsigned d = 0; d < align_cells; d++) {
#pragma HLS PIPELINE II=1
        const unsigned char base = d < job.width ? nibble(target, d) : (unsigned char)4;
        cells[d] = {0, never, never, false, 4, base, {short(-job.clip), 0, 0}};
    }
fill:
    for (unsigned cycle = 2; cycle < 2 * job.rows + job.width; cycle++) {
#pragma HLS PIPELINE II=1
        // All cells see what their neighbours had before this cycle.
        Cell before[align_cells];
#pragma HLS ARRAY_PARTITION variable=before complete
        for (int d = 0; d < align_cells; d++) {
#pragma HLS UNROLL
            before[d] = cells[d];
        }
        const unsigned char next_query = nibble(query, (cycle - 2) / 2 % align_rows_max);
        const unsigned last_row = (cycle - job.width + 1) / 2;
        const unsigned char next_target =
            nibble(target, (last_row + job.width - 2) % (align_rows_max + align_cells));
        for (unsigned d = 0; d < align_cells; d++) {
#pragma HLS UNROLL
            const unsigned row = (cycle - d) / 2;
            if (cycle >= d + 2 && (cycle - d) % 2 == 0 && row <= job.rows && d < job.width) {
                cells[d].query = d == 0 ? next_query : before[d - 1].query;
                // The first row's base was there from the start.
                if (row > 1) {
                    cells[d].target = d + 1 == job.width ? next_target : before[d + 1].target;
                }
                directions[row - 1][d] =
                    step(cells[d], before[d > 0 ? d - 1 : 0],
                         before[d + 1 < align_cells ? d + 1 : d], job, row, d);
            }
        }
    }
    end = cells[0].end;
choose:
    for (unsigned d = 1; d < align_cells; d++) {
#pragma HLS PIPELINE II=1
        const End other = cells[d].end;
        const bool later = other.score == end.score && other.row > end.row;
        if (d < job.width && (other.score > end.score || later)) {
            end = other;
        }
    }
}

// Follows the directions back and writes the result; runs last to first, step below, count above.
void trace(const Job &job, const unsigned char directions[align_rows_max][align_cells],
           const End &end, unsigned int *result) {
    unsigned row = job.fits ? end.row : 0, d = job.fits ? end.diagonal : 0;
    unsigned runs = 0, length = 0;
    unsigned char kind = 3;
    // Inside of a gap, that goes on until it was opened.
    unsigned char gap = from_pair;
trace:
    while (row > 0) {
#pragma HLS PIPELINE II=3
        const unsigned char direction = directions[row - 1][d];
        const unsigned char from = gap != from_pair ? gap : (unsigned char)(direction & 3);
        if (from == from_start) {
            break;
        }
        const unsigned char next = from == from_pair ? 0 : from == from_deletion ? 2 : 1;
        if (next != kind) {
            if (length > 0 && runs < runs_max) {
                result[5 + runs] = kind | length << 2;
            }
            runs += length > 0 ? 1 : 0;
            kind = next;
            length = 0;
        }
        length += 1;
        const unsigned char opened = from == from_deletion ? deletion_opened : insertion_opened;
        gap = from == from_pair || (direction & opened) != 0 ? from_pair : from;
        row -= from != from_deletion ? 1 : 0;
        d += from == from_insertion ? 1 : 0;
        d -= from == from_deletion ? 1 : 0;
    }
    if (length > 0) {
        if (runs < runs_max) {
            result[5 + runs] = kind | length << 2;
        }
        runs += 1;
    }
    result[0] = end.score;
    result[1] = row;
    result[2] = end.row;
    result[3] = row + d;
    result[4] = job.fits ? runs : given_up;
}

} // namespace

// `input`: header, entries and data; `output`: the same memory, where results go from word `output_at`.
void align(const unsigned int *input, unsigned int *output, unsigned jobs, unsigned output_at) {
#pragma HLS INTERFACE m_axi port=input bundle=gmem0
#pragma HLS INTERFACE m_axi port=output bundle=gmem1
    const unsigned result_words = input[0];
jobs:
    for (unsigned job = 0; job < jobs; job++) {
#pragma HLS DATAFLOW
        Job read;
        End end = {0, 0, 0};
        unsigned int query[align_rows_max / 8], target[(align_rows_max + align_cells) / 8 + 1];
        unsigned char directions[align_rows_max][align_cells];
#pragma HLS ARRAY_PARTITION variable=directions complete dim=2
        load(input, job, jobs, read, query, target);
        fill(read, query, target, directions, end);
        trace(read, directions, end, output + output_at + result_words * job);
    }
}
