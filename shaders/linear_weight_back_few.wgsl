//#kernel linear_weight_back
// dw[f,k] += Σ_t dy[t, F0+f]·x[t,k] and db[f] += Σ_t dy[t, F0+f], for few features and any number of tokens: a workgroup makes 2 features ×
// 4·COLUMNS values, and its lanes share the tokens.
//#import linear_weight_back_head

const WG: u32 = 256u;
const COLUMNS: u32 = 8u; // four values each

//#import grid
//#import sum_slices

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let parts = (p.F + 1u) >> 1u;
    let n = group_number(group);
    let f = n % parts * 2u;
    let K4 = p.K >> 2u;
    let first = n / parts * COLUMNS;
    if (first >= K4) {
        return;
    }
    // Beyond the last feature or value, the last is computed again and not stored.
    let f1 = min(1u, p.F - 1u - f);
    let column = first + lane % COLUMNS;
    let k4 = min(column, K4 - 1u);
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var sum = vec4<f32>();
    for (var t = lane / COLUMNS; t < p.T; t += WG / COLUMNS) {
        let v = x[t * K4 + k4];
        let start = t * p.Stride + p.F0 + f;
        let d = vec4<f32>(dy[start], dy[start + f1], 0.0, 0.0);
        a0 += d.x * v;
        a1 += d.y * v;
        sum += d;
    }
    a0 = sum_over_slices(a0, lane);
    a1 = sum_over_slices(a1, lane);
    sum = sum_over_slices(sum, lane);
    if (lane < COLUMNS) {
        store4(f, column << 2u, a0);
        store4(f + 1u, column << 2u, a1);
    }
    if (p.Bias == 1u && first == 0u && lane == 0u) {
        db[f] += sum.x;
        if (f + 1u < p.F) {
            db[f + 1u] += sum.y;
        }
    }
}
