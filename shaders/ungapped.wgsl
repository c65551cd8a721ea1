// Mismatches of reads laid on a reference, an invocation a place. The same steps as
// kernels/ungapped.cu; defined by src/kernel/ungapped.rs.

struct Plan {
    jobs: u32,
    // Where results begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;
// The reference, `memory[1]` words of 64 bases.
@group(0) @binding(2) var<storage, read> genome: array<u32>;

const HEADER_WORDS = 8u;
const ENTRY_WORDS = 4u;

// 32 bases of one plane of the reference, `shift` bases into group `group`. A word of 64 bases has its
// three planes after each other, two groups each.
fn plane(group: u32, shift: u32, which: u32) -> u32 {
    let next = group + 1u;
    let here = genome[(group >> 1u) * 6u + 2u * which + (group & 1u)];
    let behind = genome[(next >> 1u) * 6u + 2u * which + (next & 1u)];
    return (here >> shift) | ((behind << 1u) << (31u - shift));
}

// An entry: where the read's words begin in the data, how many of 64 bases there are, and where it is
// laid. A result: the number of mismatches, then a word of marks for each word of 32 bases.
@compute @workgroup_size(64)
fn ungapped(@builtin(global_invocation_id) id: vec3<u32>) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let entry = HEADER_WORDS + ENTRY_WORDS * job;
    let read = HEADER_WORDS + ENTRY_WORDS * plan.jobs + memory[entry];
    let words = memory[entry + 1u];
    let position = memory[entry + 2u];
    let result = plan.output_at + memory[0] * job;
    let first = position / 64u;
    let outside = first > memory[1] || words + 1u > memory[1] - first;
    var count = 0u;
    for (var i = 0u; i < 2u * words; i++) {
        var marks = 0xffffffffu;
        if !outside {
            let planes = read + 8u * (i >> 1u) + (i & 1u);
            let group = position / 32u + i;
            let shift = position & 31u;
            let low = plane(group, shift, 0u) ^ memory[planes];
            let high = plane(group, shift, 1u) ^ memory[planes + 2u];
            let unknown = plane(group, shift, 2u) | memory[planes + 4u];
            marks = (low | high | unknown) & memory[planes + 6u];
        }
        count += countOneBits(marks);
        memory[result + 1u + i] = marks;
    }
    memory[result] = select(count, 0xffffffffu, outside);
}
