// The systolic array of hls/align/align.cpp in registers: `Cells` diagonals, row `i` of diagonal `d` in
// cycle `2 i + d`, counted from the start.
module align_array #(
    parameter int Cells = 64
) (
    input logic clock,
    input logic start,
    input logic [15:0] rows,
    input logic [15:0] width,
    input logic signed [15:0] matched, mismatch, open, extend, clip,
    // The targets of the first row.
    input logic [4*Cells-1:0] first_targets,
    // The query's base of the first cell's row, and the target's of the last cell's.
    input logic [3:0] query_base, target_base,
    output logic [15:0] cycle,
    output logic busy,
    // Which cells are at a state in this cycle, and where its score comes from.
    output logic [Cells-1:0] active,
    output logic [4*Cells-1:0] directions,
    output logic [16*Cells-1:0] end_scores, end_rows
);
    logic [3:0] query[Cells], target[Cells];
    logic signed [15:0] best[Cells], insertion[Cells], deletion[Cells];
    logic [Cells-1:0] opened;

    assign busy = cycle != 0;

    always_ff @(posedge clock) begin
        if (start) cycle <= 16'd2;
        else if (cycle == 2 * rows + width - 1) cycle <= 16'd0;
        else if (cycle != 0) cycle <= cycle + 16'd1;
    end

    for (genvar d = 0; d < Cells; d++) begin : gen_cells
        localparam int Left = d == 0 ? 0 : d - 1;
        localparam int Right = d + 1 == Cells ? d : d + 1;
        logic [15:0] ahead, row;
        logic last;
        assign ahead = cycle - 16'(d);
        assign row = {1'b0, ahead[15:1]};
        assign last = width == 16'(d + 1);
        assign active[d] = busy && cycle >= 16'(d + 2) && !ahead[0] && row <= rows && 16'(d) < width;

        align_cell #(.Number(d)) one (
            .clock, .start, .active(active[d]), .row, .last_row(row == rows), .last,
            .matched, .mismatch, .open, .extend, .clip,
            .first_target(first_targets[4*d+:4]),
            .query_in(d == 0 ? query_base : query[Left]),
            .target_in(last ? target_base : target[Right]),
            .left_deletion(deletion[Left]), .left_opened(opened[Left]),
            .right_best(best[Right]), .right_insertion(insertion[Right]),
            .query(query[d]), .target(target[d]), .best(best[d]), .insertion(insertion[d]),
            .deletion(deletion[d]), .opened(opened[d]), .direction(directions[4*d+:4]),
            .end_score(end_scores[16*d+:16]), .end_row(end_rows[16*d+:16])
        );
    end
endmodule
