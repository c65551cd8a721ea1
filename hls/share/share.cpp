// Secret sharing of one piece: every output column is the sum (XOR) of the input columns that its row
// of four bits names. The same step as kernels/share.cu; defined by src/kernel/share.rs.
//
// Load, sum and store run beside each other, a word of each column a cycle.
#include "share.h"

#include <hls_stream.h>

namespace {

using flow = hls::stream<word, 16>;

void load(const word *column, flow &out, unsigned words) {
load:
    for (unsigned at = 0; at < words; at++) {
#pragma HLS PIPELINE II=1
        out.write(column[at]);
    }
}

// `value` when `bit` is set, else zero.
word keep(const word &value, bool bit) {
#pragma HLS INLINE
    return bit ? value : word(0);
}

void sum(flow in[4], flow out[4], unsigned words, ap_uint<16> rows) {
sum:
    for (unsigned at = 0; at < words; at++) {
#pragma HLS PIPELINE II=1
        const word x1 = in[0].read(), x2 = in[1].read(), y1 = in[2].read(), y2 = in[3].read();
        for (int output = 0; output < 4; output++) {
#pragma HLS UNROLL
            const ap_uint<4> row = rows >> (4 * output);
            out[output].write(keep(x1, row[0]) ^ keep(x2, row[1]) ^ keep(y1, row[2]) ^
                              keep(y2, row[3]));
        }
    }
}

// Empties the flow of output `index`, and keeps it only when that is one of the `outputs`.
void store(flow &in, word *column, unsigned words, unsigned outputs, unsigned index) {
store:
    for (unsigned at = 0; at < words; at++) {
#pragma HLS PIPELINE II=1
        const word value = in.read();
        if (index < outputs) {
            column[at] = value;
        }
    }
}

} // namespace

// `words` of 64 bytes a column; `outputs` of the four are written; `rows`: four bits an output, the
// first lowest, bit i names the input column i in the order x1, x2, y1, y2. No columns overlap.
void share(const word *x1, const word *x2, const word *y1, const word *y2, word *out0, word *out1,
           word *out2, word *out3, unsigned words, unsigned outputs, unsigned rows) {
#pragma HLS INTERFACE m_axi port=x1 bundle=gmem0
#pragma HLS INTERFACE m_axi port=x2 bundle=gmem1
#pragma HLS INTERFACE m_axi port=y1 bundle=gmem2
#pragma HLS INTERFACE m_axi port=y2 bundle=gmem3
#pragma HLS INTERFACE m_axi port=out0 bundle=gmem4
#pragma HLS INTERFACE m_axi port=out1 bundle=gmem5
#pragma HLS INTERFACE m_axi port=out2 bundle=gmem6
#pragma HLS INTERFACE m_axi port=out3 bundle=gmem7
#pragma HLS DATAFLOW
    flow in[4], out[4];
    load(x1, in[0], words);
    load(x2, in[1], words);
    load(y1, in[2], words);
    load(y2, in[3], words);
    sum(in, out, words, rows);
    store(out[0], out0, words, outputs, 0);
    store(out[1], out1, words, outputs, 1);
    store(out[2], out2, words, outputs, 2);
    store(out[3], out3, words, outputs, 3);
}
