//#kernel linear_weight_back
// dw[f,k] += Σ_t dy[t, F0+f]·x[t,k] and db[f] += Σ_t dy[t, F0+f], without workgroup memory: an invocation makes 4 features × 4 values in registers.
// For devices on which a CPU does the work, where a barrier costs more than a repeated read.
//#import linear_weight_back_head

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let K4 = p.K >> 2u;
    let k4 = i % K4;
    let f = i / K4 * 4u;
    if (f >= p.F) {
        return;
    }
    // Beyond the last feature, the last is computed again and not stored.
    let f1 = min(1u, p.F - 1u - f);
    let f2 = min(2u, p.F - 1u - f);
    let f3 = min(3u, p.F - 1u - f);
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var sum = vec4<f32>();
    for (var t = 0u; t < p.T; t++) {
        let v = x[t * K4 + k4];
        let start = t * p.Stride + p.F0 + f;
        let d = vec4<f32>(dy[start], dy[start + f1], dy[start + f2], dy[start + f3]);
        a0 += d.x * v;
        a1 += d.y * v;
        a2 += d.z * v;
        a3 += d.w * v;
        sum += d;
    }
    store4(f, k4 << 2u, a0);
    store4(f + 1u, k4 << 2u, a1);
    store4(f + 2u, k4 << 2u, a2);
    store4(f + 3u, k4 << 2u, a3);
    if (p.Bias == 1u && k4 == 0u) {
        for (var j = 0u; j < min(4u, p.F - f); j++) {
            db[f + j] += sum[j];
        }
    }
}
