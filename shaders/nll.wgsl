// y[r] = (−log softmax(logits[r])[labels[r]], the rank of column labels[r]: how many logits are larger, or equal at a lower column);
// (0, 0) where labels[r] is no column. One workgroup a row.
struct Params {
    R: u32, // rows
    V: u32, // columns
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (R,V)
@group(0) @binding(2) var<storage, read> labels: array<u32>; // (R)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (R,2)

const WG: u32 = 256u;

//#import grid
//#import reduce
//#import line_stats

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = group_number(group);
    if (r >= p.R) {
        return;
    }
    let label = labels[r];
    let stats = line_stats(r * p.V, 1u, p.V, min(label, p.V - 1u), lane);
    if (lane > 0u) {
        return;
    }
    if (label >= p.V) {
        y[2u * r] = 0.0;
        y[2u * r + 1u] = 0.0;
        return;
    }
    y[2u * r] = nll_of(stats);
    y[2u * r + 1u] = stats.rank;
}
