// The one-time pad with its hash on an FPGA: see otp.cpp.
#pragma once

#include <ap_int.h>

using block = ap_uint<128>;

// Sums that are kept at a time: the most lanes of a piece.
const unsigned otp_lanes_max = 1 << 16;

void otp(const block *data, const block *pad, const block *power, block *out, block *out_sums,
         unsigned bytes, unsigned lanes, unsigned mode);
