// Seeds in an index, an invocation a seed. The same steps as kernels/lookup.cu; defined by
// src/kernel/lookup.rs.

struct Plan {
    jobs: u32,
    // Where results begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;
// The beginnings of a part's buckets, then from word `memory[1]` on its entries, two words each.
@group(0) @binding(2) var<storage, read> seeds: array<u32>;

const HEADER_WORDS = 8u;
const ENTRY_WORDS = 2u;

// The first of the entries from `begin` to `end` whose rest of the hash is not below `rest`: that is
// in the upper word of an entry but for its lowest bit.
fn bound(begin: u32, end: u32, rest: u32) -> u32 {
    let entries = memory[1];
    var low = begin;
    var high = end;
    while low < high {
        let middle = low + (high - low) / 2u;
        if (seeds[entries + 2u * middle + 1u] >> 1u) < rest {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

// `memory[2]`: bits of the rest of a hash; then the numbers of the part's first bucket and entry. An entry is a hash, its lower word first; a result the first
// entry of that seed and their number.
@compute @workgroup_size(64)
fn lookup(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let hash = HEADER_WORDS + ENTRY_WORDS * job;
    let result = plan.output_at + 2u * job;
    // 1 to 31 bits.
    let rest_bits = memory[2];
    let whole = (memory[hash] >> rest_bits) | (memory[hash + 1u] << (32u - rest_bits));
    let bucket = whole - memory[3];
    let before = memory[4];
    let rest = memory[hash] & ((1u << rest_bits) - 1u);
    let end = seeds[bucket + 1u] - before;
    let first = bound(seeds[bucket] - before, end, rest);
    memory[result] = first + before;
    memory[result + 1u] = bound(first, end, rest + 1u) - first;
}
