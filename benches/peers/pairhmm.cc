// The PairHMM of the Genomics Kernel Library (what GATK calls) on the pairs that src/bin/pairhmm.rs writes:
// in single precision with AVX-512, again in double precision where that is too small, as GATK does it.
// Built and run by pairhmm.sh.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <xmmintrin.h>

#include "avx512_impl.h"
#include "pairhmm_common.h"

// GATK's constants: a gap's opening is of 45 Phred, its extension of 10.
static const char kOpen = 45, kExtend = 10;
static const int kTurns = 30;

static double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

struct Read {
  std::string bases, qualities, opens, extends;
};

static void measure(const std::vector<Read>& reads, const std::vector<std::string>& haplotypes) {
  std::vector<testcase> cases;
  for (const Read& read : reads) {
    for (const std::string& haplotype : haplotypes) {
      testcase one;
      one.rslen = read.bases.size();
      one.haplen = haplotype.size();
      one.rs = read.bases.data();
      one.q = read.qualities.data();
      one.i = one.d = read.opens.data();
      one.c = read.extends.data();
      one.hap = haplotype.data();
      cases.push_back(one);
    }
  }
  double best = 1e9, sum = 0;
  size_t again = 0;
  for (int turn = 0; turn < kTurns; turn++) {
    double start = processor_seconds();
    sum = again = 0;
    for (testcase& one : cases) {
      double likelihood = compute_fp_avx512s(&one);
      if (likelihood < MIN_ACCEPTED) {
        likelihood = compute_fp_avx512d(&one);
        again++;
      }
      sum += std::log10(likelihood);
    }
    best = std::min(best, processor_seconds() - start);
  }
  double each = 1e9 * best / cases.size();
  double cells = double(cases[0].rslen) * cases[0].haplen;
  printf("| GKL, AVX-512, reads of %d | %.0f | %.0f | %.2f |\n", cases[0].rslen, each, cells,
         cells / each);
  fprintf(stderr, "%zu of %zu again in double precision; sum of logarithms %.3f\n", again,
          cases.size(), sum);
}

int main(int, char** arguments) {
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  ConvertChar::init();
  std::ifstream file(arguments[1]);
  std::vector<std::string> haplotypes;
  std::vector<Read> reads;
  std::string kind, bases, qualities;
  while (file >> kind >> bases) {
    if (kind == "H") {
      haplotypes.push_back(bases);
      continue;
    }
    file >> qualities;
    for (char& quality : qualities) quality -= 33;
    if (!reads.empty() && reads[0].bases.size() != bases.size()) {
      measure(reads, haplotypes);
      reads.clear();
    }
    reads.push_back({bases, qualities, std::string(bases.size(), kOpen),
                     std::string(bases.size(), kExtend)});
  }
  measure(reads, haplotypes);
}
