// Secret sharing on an FPGA: see share.cpp.
#pragma once

#include <ap_int.h>

using word = ap_uint<512>;

void share(const word *x1, const word *x2, const word *y1, const word *y2, word *out0, word *out1,
           word *out2, word *out3, unsigned words, unsigned outputs, unsigned rows);
