// A cell of the systolic alignment: a state of its diagonal every second cycle, as `step` of
// hls/align/align.cpp.
module align_cell #(
    parameter int Number = 0
) (
    input logic clock,
    input logic start,
    // Whether this cycle is one of this cell's, and the row it is at.
    input logic active,
    input logic [15:0] row,
    input logic last_row,
    // Whether this is the band's rightmost diagonal.
    input logic last,
    input logic signed [15:0] matched, mismatch, open, extend, clip,
    input logic [3:0] first_target, query_in, target_in,
    input logic signed [15:0] left_deletion,
    input logic left_opened,
    input logic signed [15:0] right_best, right_insertion,
    output logic [3:0] query, target,
    output logic signed [15:0] best, insertion, deletion,
    output logic opened,
    // Of the state that is computed now.
    output logic [3:0] direction,
    output logic signed [15:0] end_score,
    output logic [15:0] end_row
);
    localparam logic signed [15:0] Never = -16'sd20000;

    logic [3:0] base, other;
    logic signed [15:0] by_opening, by_extending, next_insertion, own_deletion, paired, next_best;
    logic signed [15:0] from_opening, from_extending, score;
    logic [1:0] from;

    always_comb begin
        base = query_in;
        other = row > 1 ? target_in : target;
        by_opening = (last ? Never : right_best) - (open + extend);
        by_extending = (last ? Never : right_insertion) - extend;
        next_insertion = by_opening >= by_extending ? by_opening : by_extending;
        own_deletion = Number == 0 ? Never : left_deletion;
        paired = best + ((base == other && base < 4) ? matched : -mismatch);
        next_best = paired;
        from = 2'd0;
        if (-clip > next_best) begin
            next_best = -clip;
            from = 2'd1;
        end
        if (own_deletion > next_best) begin
            next_best = own_deletion;
            from = 2'd2;
        end
        if (next_insertion > next_best) begin
            next_best = next_insertion;
            from = 2'd3;
        end
        direction = {by_opening >= by_extending, Number != 0 && left_opened, from};
        from_opening = next_best - (open + extend);
        from_extending = own_deletion - extend;
        score = next_best - (last_row ? 16'sd0 : clip);
    end

    always_ff @(posedge clock) begin
        if (start) begin
            best <= 16'sd0;
            insertion <= Never;
            deletion <= Never;
            opened <= 1'b0;
            query <= 4'd4;
            target <= first_target;
            end_score <= -clip;
            end_row <= 16'd0;
        end else if (active) begin
            best <= next_best;
            insertion <= next_insertion;
            deletion <= from_opening >= from_extending ? from_opening : from_extending;
            opened <= from_opening >= from_extending;
            query <= base;
            target <= other;
            // Of equal ends the one furthest right is taken.
            if (score >= end_score) begin
                end_score <= score;
                end_row <= row;
            end
        end
    end
endmodule
