//#kernel linear_back
// dx[t,k] = Σ_f dy[t, F0+f]·w[f,k], plus add[t,k] or what dx holds, without workgroup memory: an invocation makes TOKENS tokens × 4 values in
// registers. For devices on which a CPU does the work, where a barrier costs more than a repeated read.
//#import linear_back_head

const WG: u32 = 64u;
const TOKENS: u32 = 4u; // tokens of an invocation: 1 or 4
const NEAR: u32 = 8u; // neighbouring invocations that share tokens

//#import weight
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    // Blocks of neighbouring columns take all tokens before the next columns, so that their part of the weights stays in a near cache.
    let parts = (p.T + TOKENS - 1u) / TOKENS;
    let k4 = i / (NEAR * parts) * NEAR + i % NEAR;
    let t = i / NEAR % parts * TOKENS;
    if (k4 >= p.K >> 2u) {
        return;
    }
    // Beyond the last token, the last is computed again and not stored.
    let y0 = t * p.Stride + p.F0;
    let y1 = min(t + 1u, p.T - 1u) * p.Stride + p.F0;
    let y2 = min(t + 2u, p.T - 1u) * p.Stride + p.F0;
    let y3 = min(t + 3u, p.T - 1u) * p.Stride + p.F0;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var f = 0u; f < p.F; f++) {
        let v = weight4(f, k4);
        a0 += dy[y0 + f] * v;
        if (TOKENS > 1u) {
            a1 += dy[y1 + f] * v;
            a2 += dy[y2 + f] * v;
            a3 += dy[y3 + f] * v;
        }
    }
    store4(t, k4 << 2u, a0);
    if (TOKENS > 1u) {
        store4(t + 1u, k4 << 2u, a1);
        store4(t + 2u, k4 << 2u, a2);
        store4(t + 3u, k4 << 2u, a3);
    }
}
