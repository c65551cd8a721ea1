// The one-time pad of one piece: out = data ^ pad. The same step as kernels/xor.cu; defined by `xor`
// in src/kernel/otp.rs.
//
// Load, XOR and store run beside each other, a word a cycle.
#include "xor.h"

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

void add(flow &data, flow &pad, flow &out, unsigned words) {
add:
    for (unsigned at = 0; at < words; at++) {
#pragma HLS PIPELINE II=1
        out.write(data.read() ^ pad.read());
    }
}

void store(flow &in, word *column, unsigned words) {
store:
    for (unsigned at = 0; at < words; at++) {
#pragma HLS PIPELINE II=1
        column[at] = in.read();
    }
}

} // namespace

// `words` of 64 bytes; no columns overlap.
void xor_pad(const word *data, const word *pad, word *out, unsigned words) {
#pragma HLS INTERFACE m_axi port=data bundle=gmem0
#pragma HLS INTERFACE m_axi port=pad bundle=gmem1
#pragma HLS INTERFACE m_axi port=out bundle=gmem2
#pragma HLS DATAFLOW
    flow data_flow, pad_flow, out_flow;
    load(data, data_flow, words);
    load(pad, pad_flow, words);
    add(data_flow, pad_flow, out_flow, words);
    store(out_flow, out, words);
}
