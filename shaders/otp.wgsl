// The one-time pad and the hash of the ciphertext in one pass, what of the pad has to be worked out worked
// out in registers. The same steps as kernels/otp.cu, where they are explained, but for the product of the
// hash: WGSL has no products of 64 bits. Defined by src/kernel/otp.rs.
//
// The hash is a polynomial in the key whose coefficients are the ciphertext's blocks. Invocation `t`
// sums every `lanes`-th block by Horner's rule in the key's power `lanes`; the sums, taken as a message
// of `lanes` blocks, hash to what all blocks would.
//
// AES-256 is done in bit slices, two blocks at a time: no table is looked up at a secret place, which a
// cache would tell.

struct Plan {
    // Bytes of data.
    bytes: u32,
    lanes: u32,
    // Bit 0 is set to open, clear to seal; bit 1 is set when there is a stored pad; above is the number
    // of expansions.
    mode: u32,
    spare: u32,
}

// The data, in place; `lanes` sums; the key's power; the expansions; the stored pad.
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

// Plane `i` has bit `i` of all bytes of two blocks; a byte of it is a row of the state, of which the bits
// are column 0 of either block, then column 1, and so on.
var<private> state: array<u32, 8>;

// Bits of `a` where `mask` is set, else of `b`.
fn choose(mask: u32, a: u32, b: u32) -> u32 {
    return (a & mask) | (b & ~mask);
}

fn swap_bits(i: u32, j: u32, mask: u32, shift: u32) {
    let a = state[i];
    let b = state[j];
    state[i] = choose(mask, a, b << shift);
    state[j] = choose(mask, a >> shift, b);
}

// From words to planes and back: word `2 c + b` is column `c` of block `b`.
fn transpose_state() {
    for (var i = 0u; i < 8u; i += 2u) {
        swap_bits(i, i + 1u, 0x55555555u, 1u);
    }
    for (var i = 0u; i < 4u; i++) {
        let low = i + (i & 2u);
        swap_bits(low, low + 2u, 0x33333333u, 2u);
    }
    for (var i = 0u; i < 4u; i++) {
        swap_bits(i, i + 4u, 0x0f0f0f0fu, 4u);
    }
}

// All bytes through the S-box: the circuit of Boyar and Peralta 2010.
fn substitute() {
    let x0 = state[7];
    let x1 = state[6];
    let x2 = state[5];
    let x3 = state[4];
    let x4 = state[3];
    let x5 = state[2];
    let x6 = state[1];
    let x7 = state[0];
    let y14 = x3 ^ x5;
    let y13 = x0 ^ x6;
    let y9 = x0 ^ x3;
    let y8 = x0 ^ x5;
    let t0 = x1 ^ x2;
    let y1 = t0 ^ x7;
    let y4 = y1 ^ x3;
    let y12 = y13 ^ y14;
    let y2 = y1 ^ x0;
    let y5 = y1 ^ x6;
    let y3 = y5 ^ y8;
    let t1 = x4 ^ y12;
    let y15 = t1 ^ x5;
    let y20 = t1 ^ x1;
    let y6 = y15 ^ x7;
    let y10 = y15 ^ t0;
    let y11 = y20 ^ y9;
    let y7 = x7 ^ y11;
    let y17 = y10 ^ y11;
    let y19 = y10 ^ y8;
    let y16 = t0 ^ y11;
    let y21 = y13 ^ y16;
    let y18 = x0 ^ y16;
    let t2 = y12 & y15;
    let t4 = (y3 & y6) ^ t2;
    let t6 = (y4 & x7) ^ t2;
    let t7 = y13 & y16;
    let t9 = (y5 & y1) ^ t7;
    let t11 = (y2 & y7) ^ t7;
    let t12 = y9 & y11;
    let t14 = (y14 & y17) ^ t12;
    let t16 = (y8 & y10) ^ t12;
    let t21 = t4 ^ t14 ^ y20;
    let t22 = t6 ^ t16 ^ y19;
    let t23 = t9 ^ t14 ^ y21;
    let t24 = t11 ^ t16 ^ y18;
    let t25 = t21 ^ t22;
    let t26 = t21 & t23;
    let t27 = t24 ^ t26;
    let t28 = t25 & t27;
    let t29 = t28 ^ t22;
    let t30 = t23 ^ t24;
    let t31 = t22 ^ t26;
    let t32 = t31 & t30;
    let t33 = t32 ^ t24;
    let t34 = t23 ^ t33;
    let t35 = t27 ^ t33;
    let t36 = t24 & t35;
    let t37 = t36 ^ t34;
    let t38 = t27 ^ t36;
    let t39 = t29 & t38;
    let t40 = t25 ^ t39;
    let t41 = t40 ^ t37;
    let t42 = t29 ^ t33;
    let t43 = t29 ^ t40;
    let t44 = t33 ^ t37;
    let t45 = t42 ^ t41;
    let z0 = t44 & y15;
    let z1 = t37 & y6;
    let z2 = t33 & x7;
    let z3 = t43 & y16;
    let z4 = t40 & y1;
    let z5 = t29 & y7;
    let z6 = t42 & y11;
    let z7 = t45 & y17;
    let z8 = t41 & y10;
    let z9 = t44 & y12;
    let z10 = t37 & y3;
    let z11 = t33 & y4;
    let z12 = t43 & y13;
    let z13 = t40 & y5;
    let z14 = t29 & y2;
    let z15 = t42 & y9;
    let z16 = t45 & y14;
    let z17 = t41 & y8;
    let t46 = z15 ^ z16;
    let t48 = z5 ^ z13;
    let t53 = z0 ^ z3;
    let t54 = z6 ^ z7;
    let t57 = z2 ^ z12 ^ t53;
    let t58 = z4 ^ t46;
    let t59 = z3 ^ t54;
    let t60 = t46 ^ t57;
    let t61 = z14 ^ t57;
    let t62 = z7 ^ z8 ^ t58;
    let t63 = z9 ^ z10 ^ t58;
    let t64 = z4 ^ t59;
    let t65 = t61 ^ t62;
    let t66 = z1 ^ t63;
    let s3 = t53 ^ t66;
    state[7] = t59 ^ t63;
    state[6] = ~(t64 ^ s3);
    state[5] = ~(z16 ^ z17 ^ t64 ^ t65);
    state[4] = s3;
    state[3] = z2 ^ z5 ^ t66;
    state[2] = z10 ^ z11 ^ t65;
    state[1] = ~(z12 ^ t48 ^ t62);
    state[0] = ~(t48 ^ t60);
}

// Row `r` of the state goes `r` columns to the left: its byte is rotated by `2 r` bits.
fn shift_rows() {
    for (var i = 0u; i < 8u; i++) {
        let x = state[i];
        let half = choose(0xffffu, x, choose(0x0f0f0f0fu, x >> 4u, x << 4u));
        state[i] = choose(0x00ff00ffu, half, choose(0x3f3f3f3fu, half >> 2u, half << 6u));
    }
}

fn rotate(word: u32, bits: u32) -> u32 {
    return (word >> bits) | (word << (32u - bits));
}

fn mix_columns() {
    var sum: array<u32, 8>;
    var next: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        next[i] = rotate(state[i], 8u);
        sum[i] = state[i] ^ next[i];
    }
    for (var i = 0u; i < 8u; i++) {
        let carried = select(0u, sum[7], i == 1u || i == 3u || i == 4u);
        state[i] = next[i] ^ rotate(sum[i], 16u) ^ carried ^ sum[(i + 7u) & 7u];
    }
}

// The even bits are of the first block, the odd ones of the second, each with its own round keys.
fn add_key(first: u32, second: u32) {
    for (var half = 0u; half < 2u; half++) {
        let one = columns[first + half];
        let other = columns[second + half];
        let key = (one & vec4<u32>(0x55555555u)) | (other & vec4<u32>(0xaaaaaaaau));
        for (var i = 0u; i < 4u; i++) {
            state[4u * half + i] ^= key[i];
        }
    }
}

fn swap_bytes(word: u32) -> u32 {
    let swapped = ((word & 0x00ff00ffu) << 8u) | ((word >> 8u) & 0x00ff00ffu);
    return rotate(swapped, 16u);
}

// A part of the pad that is worked out: the block where it begins, its first counter block as four
// numbers, the highest first, and the planes of 15 round keys.
const EXPANSION_VECTORS = 32u;
const KEYS_AT = 2u;

// Puts the counter block for block `at` of the piece into the words of block `which`.
fn count_block(which: u32, expansion: u32, at: u32) {
    let first = columns[expansion + 1u];
    let w = first.w + (at - columns[expansion].x);
    let z = first.z + u32(w < first.w);
    let y = first.y + u32(z < first.z);
    let x = first.x + u32(y < first.y);
    state[which] = swap_bytes(x);
    state[2u + which] = swap_bytes(y);
    state[4u + which] = swap_bytes(z);
    state[6u + which] = swap_bytes(w);
}

// Leaves the key stream of two blocks of the piece in the words.
fn key_stream(one: u32, at: u32, other: u32, beyond: u32) {
    count_block(0u, one, at);
    count_block(1u, other, beyond);
    transpose_state();
    let first = one + KEYS_AT;
    let second = other + KEYS_AT;
    add_key(first, second);
    for (var round = 1u; round < 14u; round++) {
        substitute();
        shift_rows();
        mix_columns();
        add_key(first + 2u * round, second + 2u * round);
    }
    substitute();
    shift_rows();
    add_key(first + 28u, second + 28u);
    transpose_state();
}

// The expansion of block `at` of the piece, which is not before `expansion`; `last` is the last one.
fn expansion_of(expansion: u32, last: u32, at: u32) -> u32 {
    var found = expansion;
    while found < last && columns[found + EXPANSION_VECTORS].x <= at {
        found += EXPANSION_VECTORS;
    }
    return found;
}

// Seals or opens a block; gives the ciphertext with zeros behind its end. `pad`: where the stored pad
// begins, 0 for none.
fn pass_block(at: u32, pad: u32, stream: vec4<u32>) -> vec4<u32> {
    let before = columns[at];
    var after = before ^ stream;
    if pad != 0u {
        after ^= columns[pad + at];
    }
    columns[at] = after;
    let left = plan.bytes - 16u * at;
    return first_bytes(select(after, before, (plan.mode & 1u) != 0u), min(left, 16u));
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
    let expanded = plan.mode >> 2u;
    let expansions = blocks + lanes + 1u;
    let last = expansions + EXPANSION_VECTORS * (max(expanded, 1u) - 1u);
    let pad = select(0u, expansions + EXPANSION_VECTORS * expanded, (plan.mode & 2u) != 0u);
    // As if zeros stood before the first block, so that every lane has as many.
    let missing = (lanes - blocks % lanes) % lanes;
    var at = select(lane - missing, lane + lanes - missing, lane < missing);
    var expansion = expansions;
    var sum = vec4<u32>(0u);
    while at < blocks {
        let beyond = at + lanes;
        var first = vec4<u32>(0u);
        var second = vec4<u32>(0u);
        if expanded > 0u {
            let one = expansion_of(expansion, last, at);
            expansion = expansion_of(one, last, beyond);
            key_stream(one, at, expansion, beyond);
            first = vec4<u32>(state[0], state[2], state[4], state[6]);
            second = vec4<u32>(state[1], state[3], state[5], state[7]);
        }
        sum = dot_product(sum, power) ^ pass_block(at, pad, first);
        if beyond < blocks {
            sum = dot_product(sum, power) ^ pass_block(beyond, pad, second);
        }
        at = beyond + lanes;
    }
    columns[blocks + lane] = sum;
}
