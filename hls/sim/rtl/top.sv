// Both designs that exist as registers, for the simulator.
module top (
    input logic clock,
    input logic otp_clear, otp_valid, otp_opens,
    input logic [127:0] otp_power, otp_data, otp_pad,
    input logic [15:0] otp_keep,
    output logic [127:0] otp_result, otp_sum,
    input logic align_start,
    input logic [15:0] align_rows, align_width,
    input logic signed [15:0] align_matched, align_mismatch, align_open, align_extend, align_clip,
    input logic [255:0] align_first_targets,
    input logic [3:0] align_query, align_target,
    output logic [15:0] align_cycle,
    output logic align_busy,
    output logic [63:0] align_active,
    output logic [255:0] align_directions,
    output logic [1023:0] align_end_scores, align_end_rows
);
    otp sealing (
        .clock, .clear(otp_clear), .valid(otp_valid), .opens(otp_opens), .power(otp_power),
        .data(otp_data), .pad(otp_pad), .keep(otp_keep), .result(otp_result), .sum(otp_sum)
    );
    align_array #(.Cells(64)) aligning (
        .clock, .start(align_start), .rows(align_rows), .width(align_width),
        .matched(align_matched), .mismatch(align_mismatch), .open(align_open),
        .extend(align_extend), .clip(align_clip), .first_targets(align_first_targets),
        .query_base(align_query), .target_base(align_target), .cycle(align_cycle),
        .busy(align_busy), .active(align_active), .directions(align_directions),
        .end_scores(align_end_scores), .end_rows(align_end_rows)
    );
endmodule
