// Secret sharing of one piece: every output column is the sum (XOR) of the input columns that its row
// of four bits names. The same steps as kernels/share.cu; defined by src/kernel/share.rs.

struct Plan {
    // Vectors a column.
    stride: u32,
    // Columns to write.
    outputs: u32,
    // Four bits an output, the first lowest: bit i names input column i.
    rows: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> columns: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> plan: Plan;

@compute @workgroup_size(256)
fn share(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.x;
    if at >= plan.stride {
        return;
    }
    // All inputs are read before the first output takes the place of one.
    let x1 = columns[at];
    let x2 = columns[plan.stride + at];
    let y1 = columns[2u * plan.stride + at];
    let y2 = columns[3u * plan.stride + at];
    for (var output = 0u; output < plan.outputs; output++) {
        let bits = (vec4<u32>(plan.rows >> (4u * output)) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
        // A named column is kept whole, another one becomes zero.
        let keep = vec4<u32>(0u) - bits;
        columns[output * plan.stride + at] =
            (x1 & vec4<u32>(keep.x)) ^ (x2 & vec4<u32>(keep.y))
            ^ (y1 & vec4<u32>(keep.z)) ^ (y2 & vec4<u32>(keep.w));
    }
}
