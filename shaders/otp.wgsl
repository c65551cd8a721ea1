// The one-time pad and the hash of the ciphertext in one pass. The same steps as kernels/otp.cu;
// defined by src/kernel/otp.rs.
//
// The hash is a polynomial in the key whose coefficients are the ciphertext's blocks. Invocation `t`
// sums every `lanes`-th block by Horner's rule in the key's power `lanes`; the sums, taken as a message
// of `lanes` blocks, hash to what all blocks would.

struct Plan {
    // Bytes of data.
    bytes: u32,
    lanes: u32,
    // Bit 0 is set to open, clear to seal.
    mode: u32,
    spare: u32,
}

// The data, in place; `lanes` sums; the key's power; the pad.
@group(0) @binding(0) var<storage, read_write> columns: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> plan: Plan;

// a * b * x^-128 over GF(2^128), RFC 8452, section 3: in constant time, without tables.
fn dot_product(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    var product = vec4<u32>(0u);
    var factors = b;
    for (var bit = 0u; bit < 128u; bit++) {
        product ^= a & vec4<u32>(0u - (factors.x & 1u));
        factors = (factors >> vec4<u32>(1u)) | (vec4<u32>(factors.yzw, 0u) << vec4<u32>(31u));
        // Division by x: an odd polynomial first gets the modulus added, which makes it even.
        let odd = 0u - (product.x & 1u);
        product = (product >> vec4<u32>(1u)) | (vec4<u32>(product.yzw, 0u) << vec4<u32>(31u));
        product.w ^= odd & 0xe1000000u;
    }
    return product;
}

// `value` with only its first `bytes` kept.
fn first_bytes(value: vec4<u32>, bytes: u32) -> vec4<u32> {
    var words = value;
    for (var i = 0u; i < 4u; i++) {
        let kept = select(0u, bytes - 4u * i, bytes > 4u * i);
        if kept < 4u {
            words[i] &= (1u << (8u * kept)) - 1u;
        }
    }
    return words;
}

@compute @workgroup_size(256)
fn otp(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.x;
    let lanes = plan.lanes;
    if lane >= lanes {
        return;
    }
    let blocks = (plan.bytes + 15u) / 16u;
    let power = columns[blocks + lanes];
    let pad = blocks + lanes + 1u;
    // As if zeros stood before the first block, so that every lane has as many.
    let missing = (lanes - blocks % lanes) % lanes;
    var sum = vec4<u32>(0u);
    for (var at = lane; at < blocks + missing; at += lanes) {
        var block = vec4<u32>(0u);
        if at >= missing {
            let own = at - missing;
            let before = columns[own];
            let after = before ^ columns[pad + own];
            columns[own] = after;
            let left = plan.bytes - 16u * own;
            block = first_bytes(select(after, before, (plan.mode & 1u) != 0u), min(left, 16u));
        }
        sum = dot_product(sum, power) ^ block;
    }
    columns[blocks + lane] = sum;
}
