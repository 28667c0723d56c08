//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], for few tokens: the WG lanes of a workgroup share the K of ROWS features
// and TOKENS tokens. Each lane takes 16 bytes of a weight row at a time, so that a row is read in order by the whole workgroup.
//#import linear_head

const WG: u32 = 32u;
const ROWS: u32 = 4u; // features of a workgroup: 1, 2 or 4
const TOKENS: u32 = 8u; // tokens of a workgroup: 1, 4 or 8

//#import weight
//#import linear_chunk
//#import linear_sum
//#import linear_dots
//#import erf
//#import activate
//#import linear_out
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Tokens vary fastest, so that workgroups with the same weights run near each other in time.
    let parts = (p.T + TOKENS - 1u) / TOKENS;
    let n = group_number(group);
    let f = n / parts * ROWS;
    let t = n % parts * TOKENS;
    if (f >= p.F) {
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
    let chunks = K4 / CHUNK;
    for (var i = lane; i < chunks; i += WG) {
        let c0 = chunk(f, i);
        var c1 = c0;
        var c2 = c0;
        var c3 = c0;
        if (ROWS > 1u) {
            c1 = chunk(f1, i);
        }
        if (ROWS > 2u) {
            c2 = chunk(f2, i);
            c3 = chunk(f3, i);
        }
        // Values are unpacked four at a time, so that few registers hold many features.
        for (var j = 0u; j < CHUNK; j++) {
            let w0 = chunk4(c0, j);
            var w1 = w0;
            var w2 = w0;
            var w3 = w0;
            if (ROWS > 1u) {
                w1 = chunk4(c1, j);
            }
            if (ROWS > 2u) {
                w2 = chunk4(c2, j);
                w3 = chunk4(c3, j);
            }
            let at = i * CHUNK + j;
            a0 += dots(x[x0 + at], w0, w1, w2, w3);
            if (TOKENS > 1u) {
                a1 += dots(x[x1 + at], w0, w1, w2, w3);
                a2 += dots(x[x2 + at], w0, w1, w2, w3);
                a3 += dots(x[x3 + at], w0, w1, w2, w3);
            }
            if (TOKENS > 4u) {
                a4 += dots(x[x4 + at], w0, w1, w2, w3);
                a5 += dots(x[x5 + at], w0, w1, w2, w3);
                a6 += dots(x[x6 + at], w0, w1, w2, w3);
                a7 += dots(x[x7 + at], w0, w1, w2, w3);
            }
        }
    }
    a0 = sum_over_lanes(a0, lane);
    if (TOKENS > 1u) {
        a1 = sum_over_lanes(a1, lane);
        a2 = sum_over_lanes(a2, lane);
        a3 = sum_over_lanes(a3, lane);
    }
    if (TOKENS > 4u) {
        a4 = sum_over_lanes(a4, lane);
        a5 = sum_over_lanes(a5, lane);
        a6 = sum_over_lanes(a6, lane);
        a7 = sum_over_lanes(a7, lane);
    }
    // Every lane has all sums; output o is stored by lane o.
    for (var o = lane; o < 4u * TOKENS; o += WG) {
        let token = o >> 2u;
        let row = o & 3u;
        let low = select(select(a0, a1, token == 1u), select(a2, a3, token == 3u), (token & 2u) == 2u);
        let high = select(select(a4, a5, token == 5u), select(a6, a7, token == 7u), (token & 2u) == 2u);
        let sums = select(low, high, token > 3u);
        if (row < ROWS && f + row < p.F && t + token < p.T) {
            store(t + token, f + row, sums[row]);
        }
    }
}
