//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], without workgroup memory: an invocation makes TOKENS tokens × 4 features in
// registers. For devices on which a CPU does the work, where a barrier costs more than a repeated read.
//#import linear_head

const WG: u32 = 64u;
const TOKENS: u32 = 4u; // tokens of an invocation: 1 or 4

//#import weight
//#import erf
//#import activate
//#import linear_out
//#import grid

fn store4(t: u32, f: u32, v: vec4<f32>) {
    if (t >= p.T) {
        return;
    }
    store(t, f, v.x);
    if (f + 1u < p.F) {
        store(t, f + 1u, v.y);
    }
    if (f + 2u < p.F) {
        store(t, f + 2u, v.z);
    }
    if (f + 3u < p.F) {
        store(t, f + 3u, v.w);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let quads = (p.F + 3u) >> 2u;
    let f = i % quads * 4u;
    let t = i / quads * TOKENS;
    if (t >= p.T) {
        return;
    }
    // Beyond the last feature or token, the last is computed again and not stored.
    let f1 = min(f + 1u, p.F - 1u);
    let f2 = min(f + 2u, p.F - 1u);
    let f3 = min(f + 3u, p.F - 1u);
    let K4 = p.K >> 2u;
    let x0 = t * K4;
    let x1 = min(t + 1u, p.T - 1u) * K4;
    let x2 = min(t + 2u, p.T - 1u) * K4;
    let x3 = min(t + 3u, p.T - 1u) * K4;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var k4 = 0u; k4 < K4; k4++) {
        let w0 = weight4(f, k4);
        let w1 = weight4(f1, k4);
        let w2 = weight4(f2, k4);
        let w3 = weight4(f3, k4);
        let v0 = x[x0 + k4];
        a0 += vec4<f32>(dot(v0, w0), dot(v0, w1), dot(v0, w2), dot(v0, w3));
        if (TOKENS > 1u) {
            let v1 = x[x1 + k4];
            let v2 = x[x2 + k4];
            let v3 = x[x3 + k4];
            a1 += vec4<f32>(dot(v1, w0), dot(v1, w1), dot(v1, w2), dot(v1, w3));
            a2 += vec4<f32>(dot(v2, w0), dot(v2, w1), dot(v2, w2), dot(v2, w3));
            a3 += vec4<f32>(dot(v3, w0), dot(v3, w1), dot(v3, w2), dot(v3, w3));
        }
    }
    store4(t, f, a0);
    if (TOKENS > 1u) {
        store4(t + 1u, f, a1);
        store4(t + 2u, f, a2);
        store4(t + 3u, f, a3);
    }
}
