// The one-time pad of one piece: column 0 becomes the sum (XOR) of columns 0 and 1. The same step as
// kernels/xor.cu; defined by `xor` in src/kernel/otp.rs.

struct Plan {
    // Vectors a column.
    stride: u32,
    // Unused here; the plan of every kernel has one shape.
    outputs: u32,
    rows: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> columns: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> plan: Plan;

@compute @workgroup_size(256)
fn xor(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < plan.stride {
        columns[id.x] ^= columns[plan.stride + id.x];
    }
}
