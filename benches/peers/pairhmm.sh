#!/usr/bin/env bash
# PairHMM of dsgd and of the Genomics Kernel Library on the same pairs, one after the other on one core.
#
#     benches/peers/pairhmm.sh GKL
#
# GKL is a checkout of https://github.com/Intel-HLS/GKL. Nothing of it is changed; what is built lies in a
# temporary folder.
set -euo pipefail
library=${1:?"usage: pairhmm.sh GKL"}/src/main/native
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-O3 -std=c++17 -w -mavx -mavx2 -mavx512f -mavx512dq -mavx512vl)
"${CXX:-c++}" "${flags[@]}" -I"$library/pairhmm" -I"$library/common" -o "$work/gkl" \
    "$here/pairhmm.cc" "$library/pairhmm/avx512_impl.cc" "$library/pairhmm/pairhmm_common.cc"
cargo run --quiet --release --manifest-path "$here/Cargo.toml" --bin pairhmm -- "$work/pairs"
"$work/gkl" "$work/pairs"
