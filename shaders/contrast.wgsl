// The statistics of a contrastive loss over square logits whose diagonal is right: for every row, then for every column, the logarithm of the
// sum of exponentials, −log softmax at the diagonal, the rank of the diagonal (as nll's), and 0. One workgroup a row or column.
struct Params {
    B: u32, // rows and columns
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (B,B)
@group(0) @binding(2) var<storage, read_write> stats: array<f32>; // (2·B,4): rows, then columns

const WG: u32 = 64u;

//#import grid
//#import reduce
//#import line_stats

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= 2u * p.B) {
        return;
    }
    let i = n % p.B;
    let is_row = n < p.B;
    let s = line_stats(select(i, i * p.B, is_row), select(p.B, 1u, is_row), p.B, i, lane);
    if (lane > 0u) {
        return;
    }
    stats[4u * n] = log(s.sum) + s.largest;
    stats[4u * n + 1u] = nll_of(s);
    stats[4u * n + 2u] = s.rank;
    stats[4u * n + 3u] = 0.0;
}
