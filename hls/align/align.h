// Banded affine-gap alignment on an FPGA: see align.cpp.
#pragma once

// Diagonals of the array, which is the widest band, and bases of the longest query.
const int align_cells = 64, align_rows_max = 1024;

void align(const unsigned int *input, unsigned int *output, unsigned jobs, unsigned output_at);
