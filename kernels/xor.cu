// The one-time pad of one piece: column 0 becomes the sum (XOR) of columns 0 and 1. The same step as
// shaders/xor.wgsl; defined by `xor` in src/kernel/otp.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

// `columns`: two columns of `stride` vectors, in place. One thread a vector; the parameters are those
// of every kernel, the last two are not used.
extern "C" __global__ void xor_pad(uint4 *columns, unsigned int stride, unsigned int,
                                   unsigned int) {
    const unsigned int at = dsgd_index();
    if (at < stride) {
        columns[at] = columns[at] ^ columns[size_t(stride) + at];
    }
}
