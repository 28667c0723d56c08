// The K best of each block of scores, best first: the larger score, of equal scores the lower row number. Fewer than K are followed by −∞ with
// row 0xffffffff; NaN is never among them. One workgroup a block: each lane knows the best of its own scores that is still to be given out, and
// only the lane whose score was taken looks for its next. −0 comes out as 0.
struct Params {
    N: u32,        // scores
    K: u32,        // wanted of each block
    Block: u32,    // scores in a block; the last may be shorter
    Indexed: u32,  // 1: score i belongs to row index[i], where 0xffffffff is none; 0: it belongs to row i
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<u32>; // (N) f32 bits
@group(0) @binding(2) var<storage, read> index: array<u32>; // (N), or anything where Indexed is 0
@group(0) @binding(3) var<storage, read_write> out_scores: array<u32>; // (blocks,K) f32 bits
@group(0) @binding(4) var<storage, read_write> out_rows: array<u32>; // (blocks,K)

const WG: u32 = 256u;

//#import grid
//#import best
//#import reduce_best
//#import candidate

// The best of scores first, first+WG, … below end that comes after `last`.
fn next_after(last: Best, first: u32, end: u32) -> Best {
    var best = NOTHING;
    for (var i = first; i < end; i += WG) {
        let here = candidate(i);
        if (better(last, here) && better(here, best)) {
            best = here;
        }
    }
    return best;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    let start = n * p.Block;
    // The first block is there even without scores, so that its results always are.
    if (start >= max(p.N, 1u)) {
        return;
    }
    let end = min(p.N, start + p.Block);
    var mine = next_after(Best(0xffffffffu, 0u), start + lane, end);
    for (var k = 0u; k < p.K; k++) {
        let best = best_over_group(mine, lane);
        if (lane == 0u) {
            out_scores[n * p.K + k] = key_bits(best.key);
            out_rows[n * p.K + k] = best.row;
        }
        if (best.key != NOTHING.key && mine.key == best.key && mine.row == best.row) {
            mine = next_after(best, start + lane, end);
        }
    }
}
