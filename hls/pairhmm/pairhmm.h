// The pair hidden Markov model on an FPGA: see pairhmm.cpp.
#pragma once

// Diagonals of the array, which is the widest band, and bases of the longest read.
const int pairhmm_cells = 64, pairhmm_rows_max = 1024;

void pairhmm(const unsigned int *input, unsigned int *output, unsigned jobs, unsigned output_at);
