// Logits become, in place, the gradient of their weighted cross-entropy: logits[r] = weight · (softmax(logits[r]) − onehot(label)), with label
// and weight at place R0 + r of theirs; y[R0 + r] = (−log softmax at the label, the label's rank), as nll. A label that is no column gives a
// row of zeros and (0, 0). One workgroup a row.
struct Params {
    R: u32,   // rows of logits
    V: u32,   // columns
    R0: u32,  // place of the first row's label, weight and result
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>; // (R0+R or more)
@group(0) @binding(2) var<storage, read> weights: array<f32>; // (R0+R or more)
@group(0) @binding(3) var<storage, read_write> logits: array<f32>; // (R,V)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (R0+R or more,2)

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
    let start = r * p.V;
    let label = labels[p.R0 + r];
    let stats = line_stats(start, 1u, p.V, min(label, p.V - 1u), lane);
    // Each lane has read the label's logit, which one of them is about to overwrite.
    storageBarrier();
    let labelled = label < p.V;
    if (lane == 0u) {
        y[2u * (p.R0 + r)] = select(0.0, nll_of(stats), labelled);
        y[2u * (p.R0 + r) + 1u] = select(0.0, stats.rank, labelled);
    }
    let weight = select(0.0, weights[p.R0 + r], labelled);
    let scale = weight / stats.sum;
    for (var v = lane; v < p.V; v += WG) {
        logits[start + v] = exp(logits[start + v] - stats.largest) * scale - select(0.0, weight, v == label);
    }
}
