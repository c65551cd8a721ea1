// The one-time pad and the sums of its hash, a block of 16 bytes a cycle: the part `add` and `hash` of
// hls/otp/otp.cpp in registers.
//
// The multiplier is a ring of 32 stages, four bits of the factor each. A block meets the product that
// left the ring, and goes in: so the ring holds the sums of 32 lanes, and no cycle is lost. Nothing
// moves while `valid` is low.
module otp (
    input logic clock,
    input logic clear,
    input logic valid,
    input logic opens,
    // The key to the power 32.
    input logic [127:0] power,
    input logic [127:0] data,
    input logic [127:0] pad,
    // Which bytes are hashed.
    input logic [15:0] keep,
    output logic [127:0] result,
    // The sum of this block's lane, with this block.
    output logic [127:0] sum
);
    localparam int Lanes = 32;
    localparam int Bits = 4;

    logic [127:0] sums[Lanes];
    logic [127:0] products[Lanes];
    logic [127:0] ciphertext;

    // Adds `Bits` multiples of a, and divides by x as often: RFC 8452, section 3. An odd polynomial
    // first gets the modulus added, which makes it even.
    function automatic logic [127:0] step(input logic [127:0] product, input logic [127:0] a,
                                          input logic [Bits-1:0] factor);
        logic [127:0] next;
        next = product;
        for (int i = 0; i < Bits; i++) begin
            next = next ^ (a & {128{factor[i]}});
            next = {1'b0, next[127:1]} ^ (next[0] ? {8'he1, 120'b0} : 128'b0);
        end
        return next;
    endfunction

    always_comb begin
        result = data ^ pad;
        ciphertext = opens ? data : result;
        for (int i = 0; i < 16; i++) begin
            if (!keep[i]) ciphertext[8*i+:8] = 8'b0;
        end
        sum = products[Lanes-1] ^ ciphertext;
    end

    always_ff @(posedge clock) begin
        if (clear) begin
            for (int i = 0; i < Lanes; i++) begin
                sums[i] <= 128'b0;
                products[i] <= 128'b0;
            end
        end else if (valid) begin
            sums[0] <= sum;
            products[0] <= step(128'b0, sum, power[Bits-1:0]);
            for (int i = 1; i < Lanes; i++) begin
                sums[i] <= sums[i-1];
                products[i] <= step(products[i-1], sums[i-1], power[Bits*i+:Bits]);
            end
        end
    end
endmodule
