// y[r] = (−log softmax(logits[r])[labels[r]], 1 where labels[r] is the column of the largest logit, the lowest of equals, and 0 elsewhere);
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
//#import best
//#import reduce_best

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = group_number(group);
    if (r >= p.R) {
        return;
    }
    let start = r * p.V;
    var best = NOTHING;
    for (var v = lane; v < p.V; v += WG) {
        let here = Best(order_key(bitcast<u32>(logits[start + v])), v);
        if (better(here, best)) {
            best = here;
        }
    }
    best = best_over_group(best, lane);
    let largest = bitcast<f32>(key_bits(best.key));
    var sum = 0.0;
    for (var v = lane; v < p.V; v += WG) {
        sum += exp(logits[start + v] - largest);
    }
    sum = sum_over_group(sum, lane);
    let label = labels[r];
    if (lane > 0u) {
        return;
    }
    if (label >= p.V) {
        y[2u * r] = 0.0;
        y[2u * r + 1u] = 0.0;
        return;
    }
    y[2u * r] = log(sum) + (largest - logits[start + label]);
    y[2u * r + 1u] = select(0.0, 1.0, best.row == label);
}
