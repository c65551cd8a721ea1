// Secret sharing of one piece: every output column is the sum (XOR) of the input columns that its row
// of four bits names. The same steps as shaders/share.wgsl; defined by src/kernel/share.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

// `columns`: four columns of `stride` vectors, in place. `rows`: four bits an output, the first
// lowest; bit i names input column i. One thread a vector.
extern "C" __global__ void share(uint4 *columns, unsigned int stride, unsigned int outputs,
                                 unsigned int rows) {
    const unsigned int at = dsgd_index();
    if (at >= stride) {
        return;
    }
    const size_t column = stride;
    // All inputs are read before the first output takes the place of one.
    const uint4 x1 = columns[at];
    const uint4 x2 = columns[column + at];
    const uint4 y1 = columns[2 * column + at];
    const uint4 y2 = columns[3 * column + at];
    for (unsigned int output = 0; output < outputs; output++) {
        const unsigned int row = rows >> (4 * output);
        columns[output * column + at] = dsgd_keep(x1, row) ^ dsgd_keep(x2, row >> 1) ^
                                        dsgd_keep(y1, row >> 2) ^ dsgd_keep(y2, row >> 3);
    }
}
