// The one-time pad on an FPGA: see xor.cpp. (`xor` itself is a word of C++.)
#pragma once

#include <ap_int.h>

using word = ap_uint<512>;

void xor_pad(const word *data, const word *pad, word *out, unsigned words);
