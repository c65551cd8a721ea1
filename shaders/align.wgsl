// Banded affine-gap alignment with traceback, an invocation a pair; defined by src/kernel/align.rs.

struct Plan {
    jobs: u32,
    // Where results and scratch begin, in words.
    output_at: u32,
    scratch_at: u32,
    spare: u32,
}

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> plan: Plan;

const HEADER_WORDS = 8u;
const ENTRY_WORDS = 4u;
const RUNS_MAX = 27u;
const NEVER = -20000;
// Where the best score of a state comes from, in two bits; and two more, whether its deletion and its
// insertion were opened there.
const FROM_PAIR = 0u;
const FROM_START = 1u;
const FROM_DELETION = 2u;
const FROM_INSERTION = 3u;
const DELETION_OPENED = 4u;
const INSERTION_OPENED = 8u;

// Rows of more diagonals are scratch.
const ROW_MAX = 128u;
const THREADS = 32u;

// Scores and insertions of a row of each invocation.
var<workgroup> rows_of: array<u32, 4096>;
var<private> local: u32;
var<private> is_long: bool;
// Words of scratch before the directions.
var<private> row_words: u32;

fn load(job: u32, d: u32) -> u32 {
    if is_long {
        return memory[scratch(job, d)];
    }
    return rows_of[local + d * THREADS];
}

fn store(job: u32, d: u32, state: u32) {
    if is_long {
        memory[scratch(job, d)] = state;
    } else {
        rows_of[local + d * THREADS] = state;
    }
}

struct End {
    score: i32,
    row: u32,
    diagonal: u32,
}

// A job's words of scratch lie `plan.jobs` apart, so that neighbours touch neighbouring words.
fn scratch(job: u32, at: u32) -> u32 {
    return plan.scratch_at + job + at * plan.jobs;
}

// Two signed numbers of 16 bits in one word.
fn pair(low: i32, high: i32) -> u32 {
    return (u32(low) & 0xffffu) | (u32(high) << 16u);
}

fn low(word: u32) -> i32 {
    return i32(word << 16u) >> 16u;
}

fn high(word: u32) -> i32 {
    return i32(word) >> 16u;
}

// Fills the directions of all states, eight a word, behind the row's scores and insertions, and gives
// the best end.
fn fill(job: u32, query_at: u32, target_at: u32, rows: u32, width: u32) -> End {
    let matched = i32(memory[1]);
    let mismatch = i32(memory[2]);
    let extend = i32(memory[4]);
    let open = i32(memory[3]) + extend;
    let clip = i32(memory[5]);
    let direction_words = (width + 7u) / 8u;
    for (var d = 0u; d < width; d++) {
        store(job, d, pair(0, NEVER));
    }
    var end = End(-clip, 0u, 0u);
    for (var row = 1u; row <= rows; row++) {
        let base = (memory[query_at + ((row - 1u) >> 3u)] >> (4u * ((row - 1u) & 7u))) & 15u;
        var above = low(load(job, 0u));
        var deletion = NEVER;
        var top = NEVER;
        var top_at = 0u;
        var opened = 0u;
        var bits = 0u;
        var codes = memory[target_at + ((row - 1u) >> 3u)];
        for (var d = 0u; d < width; d++) {
            let at = row - 1u + d;
            if (at & 7u) == 0u {
                codes = memory[target_at + (at >> 3u)];
            }
            let other = (codes >> (4u * (at & 7u))) & 15u;
            var next = pair(NEVER, NEVER);
            if d + 1u < width {
                next = load(job, d + 1u);
            }
            let by_opening = low(next) - open;
            let by_extending = high(next) - extend;
            let insertion = max(by_opening, by_extending);
            let paired = above + select(-mismatch, matched, base == other && base < 4u);
            let best = max(max(paired, -clip), max(insertion, deletion));
            var direction = FROM_INSERTION;
            if best == paired {
                direction = FROM_PAIR;
            } else if best == -clip {
                direction = FROM_START;
            } else if best == deletion {
                direction = FROM_DELETION;
            }
            direction |= opened | select(0u, INSERTION_OPENED, by_opening >= by_extending);
            bits |= direction << (4u * (d & 7u));
            if (d & 7u) == 7u || d + 1u == width {
                memory[scratch(job, row_words + (row - 1u) * direction_words + (d >> 3u))] = bits;
                bits = 0u;
            }
            store(job, d, pair(best, insertion));
            if best > top {
                top = best;
                top_at = d;
            }
            opened = select(0u, DELETION_OPENED, best - open >= deletion - extend);
            deletion = max(best - open, deletion - extend);
            above = low(next);
        }
        // Of equal ends the one furthest right is taken.
        let score = top - select(clip, 0, row == rows);
        if score >= end.score {
            end = End(score, row, top_at);
        }
    }
    return end;
}

fn direction_of(job: u32, width: u32, row: u32, d: u32) -> u32 {
    let at = row_words + (row - 1u) * ((width + 7u) / 8u) + (d >> 3u);
    return memory[scratch(job, at)] >> (4u * (d & 7u));
}

// Follows the directions back from `end`; runs are written last to first, step below, count above.
fn trace(job: u32, end: End, width: u32, result: u32) {
    var row = end.row;
    var d = end.diagonal;
    var runs = 0u;
    var step = 3u;
    var length = 0u;
    while row > 0u {
        let origin = direction_of(job, width, row, d) & 3u;
        if origin == FROM_START {
            break;
        }
        var count = 1u;
        var next = 0u;
        if origin == FROM_PAIR {
            row -= 1u;
        } else if origin == FROM_DELETION {
            next = 2u;
            while (direction_of(job, width, row, d) & DELETION_OPENED) == 0u {
                d -= 1u;
                count += 1u;
            }
            d -= 1u;
        } else {
            next = 1u;
            while (direction_of(job, width, row, d) & INSERTION_OPENED) == 0u {
                row -= 1u;
                d += 1u;
                count += 1u;
            }
            row -= 1u;
            d += 1u;
        }
        if next == step {
            length += count;
            continue;
        }
        if length > 0u {
            if runs < RUNS_MAX {
                memory[result + 5u + runs] = step | (length << 2u);
            }
            runs += 1u;
        }
        step = next;
        length = count;
    }
    if length > 0u {
        if runs < RUNS_MAX {
            memory[result + 5u + runs] = step | (length << 2u);
        }
        runs += 1u;
    }
    memory[result] = u32(end.score);
    memory[result + 1u] = row;
    memory[result + 2u] = end.row;
    memory[result + 3u] = row + d;
    memory[result + 4u] = runs;
}

// An entry: where the query's codes begin in the data, its bases, where the target's begin, the
// diagonals. A result: score, first query base, one past the last, first target base, the number of
// runs, and the runs when there are no more than 27.
@compute @workgroup_size(32)
fn align(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let job = id.x;
    if job >= plan.jobs {
        return;
    }
    let entry = HEADER_WORDS + ENTRY_WORDS * job;
    let data = HEADER_WORDS + ENTRY_WORDS * plan.jobs;
    let rows = memory[entry + 1u];
    let width = memory[entry + 3u];
    local = index;
    is_long = width > ROW_MAX;
    row_words = select(0u, width, is_long);
    let end = fill(job, data + memory[entry], data + memory[entry + 2u], rows, width);
    trace(job, end, width, plan.output_at + memory[0] * job);
}
