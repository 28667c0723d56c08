//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], without workgroup memory: an invocation makes TOKENS tokens × 4 features in
// registers. For devices on which a CPU does the work, where barriers are slow and each lane of a vector reads by itself.
//#import linear_head

const WG: u32 = 8u;
const TOKENS: u32 = 8u; // tokens of an invocation: 1, 4 or 8

//#import weight
//#import linear_chunk
//#import erf
//#import activate
//#import linear_out
//#import linear_near
//#import grid

fn store4(t: u32, f: u32, v: vec4<f32>) {
    if (t >= p.T) {
        return;
    }
    if (f < p.F) {
        store(t, f, v.x);
    }
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
    let n = group_number(group);
    let columns = (p.F + 4u * WG - 1u) / (4u * WG);
    let f = (n % columns * WG + lane) * 4u;
    let t = n / columns * TOKENS;
    if (t >= p.T) {
        return;
    }
    // Beyond the last feature or token, the last is computed again and not stored.
    let f0 = min(f, p.F - 1u);
    let f1 = min(f + 1u, p.F - 1u);
    let f2 = min(f + 2u, p.F - 1u);
    let f3 = min(f + 3u, p.F - 1u);
    let K4 = p.K >> 2u;
    let x0 = t * K4;
    let x1 = min(t + 1u, p.T - 1u) * K4;
    let x2 = min(t + 2u, p.T - 1u) * K4;
    let x3 = min(t + 3u, p.T - 1u) * K4;
    let x4 = min(t + 4u, p.T - 1u) * K4;
    let x5 = min(t + 5u, p.T - 1u) * K4;
    let x6 = min(t + 6u, p.T - 1u) * K4;
    let x7 = min(t + 7u, p.T - 1u) * K4;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var a4 = vec4<f32>();
    var a5 = vec4<f32>();
    var a6 = vec4<f32>();
    var a7 = vec4<f32>();
    for (var u = 0u; u < K4; u += NEAR) {
        let v0 = bring(x0 + u, lane);
        var v1 = v0;
        var v2 = v0;
        var v3 = v0;
        var v4 = v0;
        var v5 = v0;
        var v6 = v0;
        var v7 = v0;
        if (TOKENS > 1u) {
            v1 = bring(x1 + u, lane);
            v2 = bring(x2 + u, lane);
            v3 = bring(x3 + u, lane);
        }
        if (TOKENS > 4u) {
            v4 = bring(x4 + u, lane);
            v5 = bring(x5 + u, lane);
            v6 = bring(x6 + u, lane);
            v7 = bring(x7 + u, lane);
        }
        for (var c = 0u; c < NEAR; c += CHUNK) {
            let i = (u + c) / CHUNK;
            let c0 = chunk(f0, i);
            let c1 = chunk(f1, i);
            let c2 = chunk(f2, i);
            let c3 = chunk(f3, i);
            for (var j = 0u; j < CHUNK; j++) {
                let w0 = chunk4(c0, j);
                let w1 = chunk4(c1, j);
                let w2 = chunk4(c2, j);
                let w3 = chunk4(c3, j);
                let n0 = near4(v0, x0 + u, c + j);
                a0 += vec4<f32>(dot(n0, w0), dot(n0, w1), dot(n0, w2), dot(n0, w3));
                if (TOKENS > 1u) {
                    let n1 = near4(v1, x1 + u, c + j);
                    let n2 = near4(v2, x2 + u, c + j);
                    let n3 = near4(v3, x3 + u, c + j);
                    a1 += vec4<f32>(dot(n1, w0), dot(n1, w1), dot(n1, w2), dot(n1, w3));
                    a2 += vec4<f32>(dot(n2, w0), dot(n2, w1), dot(n2, w2), dot(n2, w3));
                    a3 += vec4<f32>(dot(n3, w0), dot(n3, w1), dot(n3, w2), dot(n3, w3));
                }
                if (TOKENS > 4u) {
                    let n4 = near4(v4, x4 + u, c + j);
                    let n5 = near4(v5, x5 + u, c + j);
                    let n6 = near4(v6, x6 + u, c + j);
                    let n7 = near4(v7, x7 + u, c + j);
                    a4 += vec4<f32>(dot(n4, w0), dot(n4, w1), dot(n4, w2), dot(n4, w3));
                    a5 += vec4<f32>(dot(n5, w0), dot(n5, w1), dot(n5, w2), dot(n5, w3));
                    a6 += vec4<f32>(dot(n6, w0), dot(n6, w1), dot(n6, w2), dot(n6, w3));
                    a7 += vec4<f32>(dot(n7, w0), dot(n7, w1), dot(n7, w2), dot(n7, w3));
                }
            }
        }
    }
    store4(t, f, a0);
    if (TOKENS > 1u) {
        store4(t + 1u, f, a1);
        store4(t + 2u, f, a2);
        store4(t + 3u, f, a3);
    }
    if (TOKENS > 4u) {
        store4(t + 4u, f, a4);
        store4(t + 5u, f, a5);
        store4(t + 6u, f, a6);
        store4(t + 7u, f, a7);
    }
}
