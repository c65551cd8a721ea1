// Reads laid on a reference without gaps, an invocation a place: the best stretch between mismatches. The
// same steps as kernels/ungapped.cu; defined by src/kernel/ungapped.rs.

struct Plan {
    jobs: u32,
    // Where results begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;
// A part of the reference.
@group(0) @binding(2) var<storage, read> genome: array<u32>;

const HEADER_WORDS = 8u;
const ENTRY_WORDS = 4u;
// Mismatches closer than this to each other, or half as close to the read's end, may be the mark of a gap.
const SUSPICIOUS_BASES = 12u;

// The three planes of 32 bases of the reference: low, high, unknown. A word of 64 bases has its planes
// after each other, two groups each.
fn planes_of(group: u32) -> vec3<u32> {
    let at = (group >> 1u) * 6u + (group & 1u);
    return vec3<u32>(genome[at], genome[at + 2u], genome[at + 4u]);
}

// The header: words of the whole reference, points of a match, of a mismatch, of a clip, the number of the
// part's first word. An entry: where the
// read's words begin in the data, its bases, and where it is laid. A result: the points of the best
// stretch, its first base, one past its last, and whether mismatches are crowded.
@compute @workgroup_size(64)
fn ungapped(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let entry = HEADER_WORDS + ENTRY_WORDS * job;
    let read = HEADER_WORDS + ENTRY_WORDS * plan.jobs + memory[entry];
    let length = memory[entry + 1u];
    let position = memory[entry + 2u];
    let matched = i32(memory[2]);
    let mismatch = i32(memory[3]);
    let clip = i32(memory[4]);
    let shift = vec3<u32>(position & 31u);
    let words = (length + 63u) / 64u;
    let first = position / 64u;
    let outside = first > memory[1] || words + 1u > memory[1] - first;
    // The best stretch of what was seen up to `behind`, and the one that goes on from there.
    var best = i32(-0x80000000);
    var best_start = 0u;
    var best_end = 0u;
    var points = 0;
    var start = 0u;
    var behind = 0u;
    var crowded = false;
    // Counted from the part's first.
    let first_group = position / 32u - 2u * memory[5];
    var here = vec3<u32>(0u);
    if !outside {
        here = planes_of(first_group);
    }
    for (var i = 0u; 32u * i < length; i++) {
        var marks = 0xffffffffu;
        if !outside {
            let planes = read + 8u * (i >> 1u) + (i & 1u);
            let next = planes_of(first_group + i + 1u);
            let there = (here >> shift) | ((next << vec3<u32>(1u)) << (vec3<u32>(31u) - shift));
            let differ = (there.x ^ memory[planes]) | (there.y ^ memory[planes + 2u]);
            marks = (differ | there.z | memory[planes + 4u]) & memory[planes + 6u];
            here = next;
        }
        while marks != 0u {
            let at = 32u * i + countTrailingZeros(marks);
            marks &= marks - 1u;
            if at >= length {
                break;
            }
            crowded = crowded || (behind > 0u && at - behind < SUSPICIOUS_BASES);
            points += i32(at - behind) * matched;
            if points - clip > best {
                best = points - clip;
                best_start = start;
                best_end = at;
            }
            points -= mismatch;
            if points < -clip {
                points = -clip;
                start = at + 1u;
            }
            behind = at + 1u;
        }
    }
    crowded = crowded || (behind > 0u && length - behind < SUSPICIOUS_BASES / 2u);
    points += i32(length - behind) * matched;
    if points >= best {
        best = points;
        best_start = start;
        best_end = length;
    }
    let result = plan.output_at + 4u * job;
    memory[result] = u32(best);
    memory[result + 1u] = best_start;
    memory[result + 2u] = best_end;
    memory[result + 3u] = u32(crowded);
}
