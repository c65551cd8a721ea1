// The one-time pad and the hash of the ciphertext in one pass, a block of 16 bytes a cycle. The same
// sums as kernels/otp.cu; defined by src/kernel/otp.rs.
//
// Sum `at % lanes` takes a block every `lanes` cycles, so a multiplication may take as many: with
// `latency` lanes or more the loop starts a block each cycle, with fewer it waits.
#include "otp.h"

#include <hls_stream.h>

namespace {

// Cycles that a multiplication is given.
const unsigned latency = 32;

using flow = hls::stream<block, 64>;

void load(const block *column, flow &out, unsigned blocks) {
load:
    for (unsigned at = 0; at < blocks; at++) {
#pragma HLS PIPELINE II=1
        out.write(column[at]);
    }
}

// a * b * x^-128 over GF(2^128), RFC 8452, section 3.
block dot(const block &a, const block &b) {
#pragma HLS PIPELINE II=1
#pragma HLS LATENCY max=latency
    block modulus = 0;
    modulus[127] = modulus[126] = modulus[125] = modulus[120] = 1;
    block product = 0;
    for (int bit = 0; bit < 128; bit++) {
#pragma HLS UNROLL
        if (b[bit]) {
            product ^= a;
        }
        // Division by x: an odd polynomial first gets the modulus added, which makes it even.
        const bool odd = product[0];
        product >>= 1;
        if (odd) {
            product ^= modulus;
        }
    }
    return product;
}

void add(flow &data, flow &pad, flow &out, flow &hashed, unsigned blocks, unsigned last_bytes,
         bool opens) {
add:
    for (unsigned at = 0; at < blocks; at++) {
#pragma HLS PIPELINE II=1
        const block before = data.read(), after = before ^ pad.read();
        block ciphertext = opens ? before : after;
        // Of the last block only the bytes of the data count.
        for (unsigned byte = 0; byte < 16; byte++) {
#pragma HLS UNROLL
            if (at + 1 == blocks && byte >= last_bytes) {
                ciphertext(8 * byte + 7, 8 * byte) = 0;
            }
        }
        out.write(after);
        hashed.write(ciphertext);
    }
}

void hash(flow &hashed, const block *power, block *out_sums, unsigned blocks, unsigned lanes) {
    block sums[otp_lanes_max];
#pragma HLS BIND_STORAGE variable=sums type=ram_2p impl=uram
    const block factor = *power;
    // As if zeros stood before the first block, so that every lane has as many.
    unsigned lane = blocks % lanes == 0 ? 0 : lanes - blocks % lanes;
clear:
    for (unsigned at = 0; at < lanes; at++) {
#pragma HLS PIPELINE II=1
        sums[at] = 0;
    }
    if (lanes >= latency) {
    sum:
        for (unsigned at = 0; at < blocks; at++) {
#pragma HLS PIPELINE II=1
#pragma HLS DEPENDENCE variable=sums inter RAW distance=32 true
            sums[lane] = dot(sums[lane], factor) ^ hashed.read();
            lane = lane + 1 == lanes ? 0 : lane + 1;
        }
    } else {
    wait:
        for (unsigned at = 0; at < blocks; at++) {
#pragma HLS PIPELINE II=32
            sums[lane] = dot(sums[lane], factor) ^ hashed.read();
            lane = lane + 1 == lanes ? 0 : lane + 1;
        }
    }
give:
    for (unsigned at = 0; at < lanes; at++) {
#pragma HLS PIPELINE II=1
        out_sums[at] = sums[at];
    }
}

void store(flow &in, block *column, unsigned blocks) {
store:
    for (unsigned at = 0; at < blocks; at++) {
#pragma HLS PIPELINE II=1
        column[at] = in.read();
    }
}

} // namespace

// `bytes` of data, up to `otp_lanes_max` `lanes`; `mode`: bit 0 is set to open, clear to seal. `power`:
// the hash key to the power `lanes`. `out_sums`, taken as a message of `lanes` blocks, hash to what the
// ciphertext does. Only `data` and `out` may overlap.
void otp(const block *data, const block *pad, const block *power, block *out, block *out_sums,
         unsigned bytes, unsigned lanes, unsigned mode) {
#pragma HLS INTERFACE m_axi port=data bundle=gmem0
#pragma HLS INTERFACE m_axi port=pad bundle=gmem1
#pragma HLS INTERFACE m_axi port=power bundle=gmem2
#pragma HLS INTERFACE m_axi port=out bundle=gmem3
#pragma HLS INTERFACE m_axi port=out_sums bundle=gmem2
#pragma HLS DATAFLOW
    flow data_flow, pad_flow, out_flow, hash_flow;
    const unsigned blocks = (bytes + 15) / 16;
    load(data, data_flow, blocks);
    load(pad, pad_flow, blocks);
    add(data_flow, pad_flow, out_flow, hash_flow, blocks, bytes - 16 * (blocks - 1), (mode & 1) != 0);
    hash(hash_flow, power, out_sums, blocks, lanes);
    store(out_flow, out, blocks);
}
