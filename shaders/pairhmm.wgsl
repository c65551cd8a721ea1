// The most probable path of a pair hidden Markov model in fixed point, an invocation a pair of read
// and haplotype. The same steps as kernels/pairhmm.cu; defined by src/kernel/pairhmm.rs.

struct Plan {
    jobs: u32,
    // Where results and scratch begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;

const HEADER_WORDS = 64u;
const ENTRY_WORDS = 8u;
// Penalties by quality: agreeing below, differing above.
const PENALTIES_AT = 1u;
const NEVER = 16383;
// A haplotype base beyond its ends: differs from every base, and has no gaps.
const OUTSIDE = 0x7ffffffdu;

// Rows of more diagonals are scratch.
const ROW_MAX = 128u;
const THREADS = 32u;

// Best of all states and best that ends in an insertion, of a row of each invocation.
var<workgroup> rows_of: array<u32, 4096>;
var<private> local: u32;
var<private> scratch: u32;
var<private> is_long: bool;

fn load(d: u32) -> u32 {
    if is_long {
        return memory[scratch + d * plan.jobs];
    }
    return rows_of[local + d * THREADS];
}

fn store(d: u32, state: u32) {
    if is_long {
        memory[scratch + d * plan.jobs] = state;
    } else {
        rows_of[local + d * THREADS] = state;
    }
}

// Two signed numbers of 16 bits in one word.
fn pair(low: i32, high: i32) -> u32 {
    return (u32(low) & 0xffffu) | (u32(high) << 16u);
}

fn low(word: u32) -> i32 {
    return i32(word << 16u) >> 16u;
}

fn high(word: u32) -> i32 {
    return i32(word) >> 16u;
}

// The header: words of a result, then penalties by quality. An entry: where the read begins in the
// data, its bases, where the haplotype begins, its bases, the lowest diagonal, the diagonals, the
// limit. A read's base has sixteen bits: code below, quality above; a haplotype's has a word: code in
// 3 bits, opening of a gap in 14, its extension in 14. The result is the penalty.
@compute @workgroup_size(32)
fn pairhmm(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let entry = HEADER_WORDS + ENTRY_WORDS * job;
    let data = HEADER_WORDS + ENTRY_WORDS * plan.jobs;
    let read_at = data + memory[entry];
    let rows = memory[entry + 1u];
    let haplotype_at = data + memory[entry + 2u];
    let bases = memory[entry + 3u];
    let lowest = memory[entry + 4u];
    let width = memory[entry + 5u];
    let limit = i32(memory[entry + 6u]);
    local = index;
    // Neighbours' words touch.
    scratch = plan.scratch_at + job;
    is_long = width > ROW_MAX;
    for (var d = 0u; d < width; d++) {
        store(d, pair(0, NEVER));
    }
    var result = 0;
    for (var row = 0u; row < rows; row++) {
        let read_base = (memory[read_at + (row >> 1u)] >> (16u * (row & 1u))) & 0xffffu;
        let base = read_base & 0xffu;
        let penalties = memory[PENALTIES_AT + (read_base >> 8u)];
        let agree = low(penalties);
        let differ = select(high(penalties), agree, base > 3u);
        var before = NEVER;
        var deleted = NEVER;
        var best = NEVER;
        var here = pair(NEVER, NEVER);
        if width > 0u {
            here = load(0u);
        }
        for (var d = 0u; d < width; d++) {
            // Positions before the haplotype's begin become too large.
            let at = lowest + row + d;
            var from_base = OUTSIDE;
            if at < bases {
                from_base = memory[haplotype_at + at];
            }
            let open = i32((from_base >> 3u) & 16383u);
            let extend = i32((from_base >> 17u) & 16383u);
            var next = pair(NEVER, NEVER);
            if d + 1u < width {
                next = load(d + 1u);
            }
            let matched = min(low(here) + select(differ, agree, (from_base & 7u) == base), NEVER);
            let inserted = min(min(low(next) + open, high(next) + extend), NEVER);
            deleted = min(before + open, deleted + extend);
            before = matched;
            let cell = min(min(matched, inserted), min(deleted, NEVER));
            best = min(best, cell);
            store(d, pair(cell, inserted));
            here = next;
        }
        result = best;
        if best >= limit {
            result = limit;
            break;
        }
    }
    memory[plan.output_at + job] = u32(result);
}
