//#kernel top_k
// Top-k for adapters on a CPU, where barriers are slow: one invocation a block, which keeps its K best in its place of the results, sorted, and
// moves them along for each score that is better than the last of them.
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

const WG: u32 = 8u;

//#import grid
//#import best
//#import candidate

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    let start = n * p.Block;
    if (start >= max(p.N, 1u)) {
        return;
    }
    let end = min(p.N, start + p.Block);
    let out = n * p.K;
    for (var k = 0u; k < p.K; k++) {
        out_scores[out + k] = key_bits(NOTHING.key);
        out_rows[out + k] = NOTHING.row;
    }
    var worst = NOTHING;
    for (var i = start; i < end; i++) {
        let here = candidate(i);
        if (!better(here, worst)) {
            continue;
        }
        var k = p.K - 1u;
        for (; k > 0u; k--) {
            let above = result(out + k - 1u);
            if (!better(here, above)) {
                break;
            }
            out_scores[out + k] = key_bits(above.key);
            out_rows[out + k] = above.row;
        }
        out_scores[out + k] = key_bits(here.key);
        out_rows[out + k] = here.row;
        worst = result(out + p.K - 1u);
    }
}

fn result(i: u32) -> Best {
    return Best(select(order_key(out_scores[i]), NOTHING.key, out_rows[i] == NOTHING.row), out_rows[i]);
}
