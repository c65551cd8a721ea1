#!/usr/bin/env bash
# dsgd beside the usual open programs, one after the other on the same reads: CPU seconds, wall time
# and accuracy. Programs that are not installed are left out.
#
# usage: benches/peers.sh REFERENCE READS_1 READS_2 [TRUTH_VCF REGIONS_BED]
#
#   DSGD      the program to measure           [default: dsgd of this package's release build]
#   THREADS   threads for every program        [default: all cores]
#   PEERS     aligners among "bwa minimap2 snap"          [default: all that are installed]
#   CALLERS   callers among "bcftools freebayes", or ""   [default: all that are installed]
#   FOLDER    working folder, kept when it is given       [default: a temporary one]
#
# Where the reads' names carry their places (sim:NUMBER:CONTIG:FIRST:SECOND:..., FIRST and SECOND
# being the leftmost bases of the two mates counted from 1, CONTIG "*" for a contaminant) the table
# says, too, how many of the reads are placed with MAPQ 20 and more, and how many of those lie
# elsewhere: on another contig, or with their unclipped start more than 50 bases away. The file
# calibration.md in the folder compares the mapping qualities with the errors.
#
# CPU seconds are user and system time of the command with its children: what a load of the machine
# by others changes little. Building of indexes is told apart. Calls of the peers count from QUAL 20,
# those of dsgd when they pass its filters.
set -euo pipefail

if [ $# -ne 3 ] && [ $# -ne 5 ]; then
    sed -n '2,/^set/p' "$0" | grep '^#' | sed 's/^# \?//' >&2
    exit 2
fi
package=$(cd "$(dirname "$0")/.." && pwd)
reference=$(realpath "$1") first=$(realpath "$2") second=$(realpath "$3")
truth=${4:+$(realpath "$4")} regions=${5:+$(realpath "$5")}
dsgd=${DSGD:-${CARGO_TARGET_DIR:-$package/target}/release/dsgd}
threads=${THREADS:-$(nproc)}

installed() {
    local found="" name
    for name in "$@"; do
        case $name in snap) program=snap-aligner ;; *) program=$name ;; esac
        command -v "$program" >/dev/null && found+=" $name"
    done
    echo "$found"
}
peers=${PEERS-$(installed bwa minimap2 snap)}
callers=${CALLERS-$(installed bcftools freebayes)}

if [ -n "${FOLDER:-}" ]; then
    mkdir -p "$FOLDER"
else
    FOLDER=$(mktemp -d)
    trap 'rm -rf "$FOLDER"' EXIT
fi
cd "$FOLDER"
case $reference in
    *.gz) gzip -dc "$reference" >ref.fa ;;
    *) ln -sf "$reference" ref.fa ;;
esac
export first second threads dsgd

# measure LABEL COMMAND: runs it, leaves "wall cpu" in LABEL.time and what it says in LABEL.log
measure() {
    local TIMEFORMAT="%R %U %S"
    { time bash -o pipefail -c "$2" >"$1.log" 2>&1; } 2>"$1.times" || {
        echo "$1 failed:" >&2
        tail -n 5 "$1.log" >&2
        return 1
    }
    awk '{ printf "%.2f %.2f\n", $1, $2 + $3 }' "$1.times" >"$1.time"
}

# accuracy VCF LEAST_QUAL: F1 of substitutions and of indels
accuracy() {
    if [ -z "$truth" ]; then
        echo "- -"
        return
    fi
    "$dsgd" compare "$truth" "$1" --reference ref.fa --regions "$regions" --min-quality "$2" \
        --summary scores.csv >/dev/null
    awk -F, '$2 == "PASS" { f1[$1] = $14 } END { print f1["SNP"], f1["INDEL"] }' scores.csv
}

# placement NAME BAM: per cent of the reads with MAPQ 20 and more, and per cent of those that are
# wrong; adds a table to calibration.md
placement() {
    if [ "$simulated" = no ]; then
        echo "- -"
        return
    fi
    samtools view -F 0x900 "$2" | awk -F '\t' -v name="$1" '
        {
            split($1, at, ":")
            if (at[3] == "*") next
            reads++
            if (int($2 / 4) % 2) next
            clip = match($6, /^[0-9]+S/) ? substr($6, 1, RLENGTH - 1) : 0
            off = $4 - clip - (int($2 / 128) % 2 ? at[5] : at[4])
            wrong = $3 != at[3] || off > 50 || off < -50
            if ($5 >= 20) { sure++; misplaced += wrong }
            class = int($5 / 10) * 10
            count[class]++
            expected[class] += 10 ^ (-$5 / 10)
            errors[class] += wrong
        }
        END {
            printf "\n%s\n\n| MAPQ | reads | errors by MAPQ | errors | observed MAPQ |\n", name >> "calibration.md"
            print "| --- | ---: | ---: | ---: | ---: |" >> "calibration.md"
            for (class = 0; class < 256; class += 10) if (count[class]) {
                observed = errors[class] ? sprintf("%.1f", -4.3429448 * log(errors[class] / count[class])) : "-"
                printf "| %d-%d | %d | %.1f | %d | %s |\n", class, class + 9, count[class], \
                    expected[class], errors[class], observed >> "calibration.md"
            }
            printf "%.3f %.4f\n", 100 * sure / (reads ? reads : 1), 100 * misplaced / (sure ? sure : 1)
        }'
}

row() {
    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' "$@"
}

environment() {
    echo "processor: $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores; threads $threads"
    echo "kernel: $(uname -r); load when it began: $(cut -d' ' -f1 /proc/loadavg)"
    echo "reference: $(basename "$reference"), $(grep -v '>' ref.fa | tr -d '\n' | wc -c) bases; reads: $(basename "$first"), $(basename "$second")"
    echo "dsgd: $("$dsgd" --version)"
    for peer in $peers; do
        case $peer in
            bwa) echo "bwa: $(bwa 2>&1 | sed -n 's/^Version: //p')" ;;
            minimap2) echo "minimap2: $(minimap2 --version)" ;;
            snap) echo "SNAP: $(snap-aligner 2>&1 | grep -m 1 -io 'version [^ ]*')" ;;
        esac
    done
    for program in samtools bcftools freebayes; do
        if command -v "$program" >/dev/null; then echo "$program: $("$program" --version | head -n 1)"; fi
    done
    echo
}

prepare() {
    measure index-dsgd '"$dsgd" index build ref.fa --output ref.dsgd --threads "$threads"'
    [ -n "$peers$callers" ] && samtools faidx ref.fa
    for peer in $peers; do
        case $peer in
            bwa) measure index-bwa 'bwa index ref.fa' ;;
            minimap2) measure index-minimap2 'minimap2 -x sr -d ref.mmi ref.fa' ;;
            snap) measure index-snap 'snap-aligner index ref.fa snap -t"$threads"' ;;
        esac
    done
    for times in index-*.time; do
        read -r wall cpu <"$times"
        name=${times%.time}
        echo "index of ${name#index-}: $cpu CPU s, $wall s"
    done
    echo
}

group='@RG\tID:sample\tSM:sample'
export group
align() {
    case $1 in
        bwa) echo 'bwa mem -t "$threads" -R "$group" ref.fa "$first" "$second" | samtools sort -@ "$threads" -m 700M -o bwa.bam' ;;
        minimap2) echo 'minimap2 -ax sr -t "$threads" -R "$group" ref.mmi "$first" "$second" | samtools sort -@ "$threads" -m 700M -o minimap2.bam' ;;
        snap) echo 'snap-aligner paired snap "$first" "$second" -t "$threads" -R "$group" -so -o snap.bam' ;;
    esac
}
call() {
    case $2 in
        bcftools) echo "bcftools mpileup -f ref.fa $1.bam | bcftools call -mv -Oz -o $1.bcftools.vcf.gz" ;;
        freebayes) echo "freebayes -f ref.fa $1.bam | bcftools view -Oz -o $1.freebayes.vcf.gz" ;;
    esac
}

environment
prepare
case $first in
    *.gz) name=$(gzip -dc "$first" | head -n 1 || true) ;;
    *) name=$(head -n 1 "$first") ;;
esac
case $name in @sim:*:*:*:*) simulated=yes ;; *) simulated=no ;; esac
rm -f calibration.md
row pipeline "align + sort CPU s" "call CPU s" "CPU s" "wall s" "SNP F1" "indel F1" "MAPQ>=20 %" "wrong of them %"
row --- ---: ---: ---: ---: ---: ---: ---: ---:
measure dsgd '"$dsgd" call --reference ref.fa --index ref.dsgd --reads "$first" "$second" --output dsgd.vcf.gz --threads "$threads" --progress never'
read -r wall cpu <dsgd.time
placed="- -"
if [ $simulated = yes ]; then
    # Not among the time: the peers' alignments are there anyway, dsgd does without.
    measure dsgd-bam '"$dsgd" call --reference ref.fa --index ref.dsgd --reads "$first" "$second" --output again.vcf.gz --bam dsgd.bam --threads "$threads" --progress never'
    placed=$(placement dsgd dsgd.bam)
fi
row dsgd "" "" "$cpu" "$wall" $(accuracy dsgd.vcf.gz 0) $placed
for peer in $peers; do
    measure "$peer" "$(align "$peer")"
    read -r align_wall align_cpu <"$peer.time"
    placed=$(placement "$peer" "$peer.bam")
    [ -n "$callers" ] || row "$peer" "$align_cpu" "" "$align_cpu" "$align_wall" - - $placed
    for caller in $callers; do
        measure "$peer.$caller" "samtools index $peer.bam; $(call "$peer" "$caller")"
        read -r wall cpu <"$peer.$caller.time"
        row "$peer + $caller" "$align_cpu" "$cpu" \
            "$(awk "BEGIN { printf \"%.2f\", $align_cpu + $cpu }")" \
            "$(awk "BEGIN { printf \"%.2f\", $align_wall + $wall }")" \
            $(accuracy "$peer.$caller.vcf.gz" 20) $placed
    done
done
if [ -f calibration.md ]; then
    cat calibration.md
fi
