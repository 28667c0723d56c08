//#kernel linear_back
// dx[t,k] = Σ_f dy[t, F0+f]·w[f,k], plus add[t,k] or what dx holds, for few tokens: a workgroup makes 4 tokens × 4·COLUMNS values, and its lanes
// share the features.
//#import linear_back_head

const WG: u32 = 256u;
const COLUMNS: u32 = 8u; // four values each

//#import weight
//#import grid
//#import sum_slices

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Tokens vary fastest, so that workgroups with the same weights run near each other in time.
    let parts = (p.T + 3u) >> 2u;
    let n = group_number(group);
    let t = n % parts * 4u;
    let K4 = p.K >> 2u;
    if (n / parts * COLUMNS >= K4) {
        return;
    }
    // Beyond the last token or value, the last is computed again and not stored.
    let column = n / parts * COLUMNS + lane % COLUMNS;
    let k4 = min(column, K4 - 1u);
    let y0 = t * p.Stride + p.F0;
    let y1 = min(t + 1u, p.T - 1u) * p.Stride + p.F0;
    let y2 = min(t + 2u, p.T - 1u) * p.Stride + p.F0;
    let y3 = min(t + 3u, p.T - 1u) * p.Stride + p.F0;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var f = lane / COLUMNS; f < p.F; f += WG / COLUMNS) {
        let v = weight4(f, k4);
        a0 += dy[y0 + f] * v;
        a1 += dy[y1 + f] * v;
        a2 += dy[y2 + f] * v;
        a3 += dy[y3 + f] * v;
    }
    a0 = sum_over_slices(a0, lane);
    a1 = sum_over_slices(a1, lane);
    a2 = sum_over_slices(a2, lane);
    a3 = sum_over_slices(a3, lane);
    if (lane < COLUMNS) {
        store4(t, column << 2u, a0);
        store4(t + 1u, column << 2u, a1);
        store4(t + 2u, column << 2u, a2);
        store4(t + 3u, column << 2u, a3);
    }
}
