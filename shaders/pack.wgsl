// Reads as bit planes of both strands, and their qualities in bins, an invocation a read. The same
// steps as kernels/pack.cu; defined by src/kernel/pack.rs.

struct Plan {
    jobs: u32,
    // Where results begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;

const HEADER_WORDS = 8u;
const ENTRY_WORDS = 2u;

// A base of the read: code below, quality above.
fn base(read: u32, at: u32) -> u32 {
    return (memory[read + (at >> 1u)] >> (16u * (at & 1u))) & 0xffffu;
}

// Writes the four planes of 32 bases, which are half of a word of each.
fn put(planes: u32, group: u32, bits: vec4<u32>) {
    let word = planes + 8u * (group >> 1u) + (group & 1u);
    memory[word] = bits.x;
    memory[word + 2u] = bits.y;
    memory[word + 4u] = bits.z;
    memory[word + 6u] = bits.w;
}

// The planes of up to 32 bases from `begin`, in the order and the codes of one strand.
fn gather(read: u32, bases: u32, begin: u32, backward: bool) -> vec4<u32> {
    var bits = vec4<u32>(0u);
    for (var i = 0u; i < 32u && begin + i < bases; i++) {
        let at = select(begin + i, bases - 1u - begin - i, backward);
        let code = base(read, at) & 0xffu;
        let known = select(0u, 1u, code < 4u);
        // Of a complement both bits are the other way round.
        let oriented = select(code, 3u - code, backward);
        bits |= vec4<u32>(oriented & known, (oriented >> 1u) & known, 1u - known, 1u) << vec4<u32>(i);
    }
    return bits;
}

fn bin(quality: u32) -> u32 {
    return select(0u, 1u, quality >= 2u) + select(0u, 1u, quality >= 10u)
        + select(0u, 1u, quality >= 20u) + select(0u, 1u, quality >= 25u)
        + select(0u, 1u, quality >= 30u) + select(0u, 1u, quality >= 35u)
        + select(0u, 1u, quality >= 40u);
}

// An entry: where the read begins in the data, its bases. A read's base has sixteen bits: code below,
// quality above. A result has room for `memory[1]` words of 64 bases: their planes as sequenced, those
// of the reverse complement, and eight words of bins for each.
@compute @workgroup_size(64)
fn pack(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let entry = HEADER_WORDS + ENTRY_WORDS * job;
    let read = HEADER_WORDS + ENTRY_WORDS * plan.jobs + memory[entry];
    let bases = memory[entry + 1u];
    let words = memory[1];
    let forward = plan.output_at + memory[0] * job;
    let backward = forward + 8u * words;
    let bins = backward + 8u * words;
    for (var group = 0u; group < 2u * ((bases + 63u) / 64u); group++) {
        put(forward, group, gather(read, bases, 32u * group, false));
        put(backward, group, gather(read, bases, 32u * group, true));
    }
    var eight = 0u;
    for (var at = 0u; at < bases; at++) {
        eight |= bin(base(read, at) >> 8u) << (4u * (at & 7u));
        if (at & 7u) == 7u || at + 1u == bases {
            memory[bins + (at >> 3u)] = eight;
            eight = 0u;
        }
    }
}
