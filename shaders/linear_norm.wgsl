// y[F0+f] = act(Σ_k n[k]·w[f,k] + bias[F0+f]) for one token, n = (x − mean) / sqrt(variance + Eps) · gain + shift: layer_norm.wgsl and linear.wgsl in
// one. Lanes share the K of ROWS features, as in linear_row.wgsl.
struct Params {
    K: u32,    // values of the token
    F: u32,    // features: rows of w
    F0: u32,   // where the features begin in y
    Act: u32,  // ActNone, ActReLU, ActQuickGELU or ActGELU
    Bias: u32, // 1: add bias
    Eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (K)
@group(0) @binding(2) var<storage, read> gain: array<vec4<f32>>; // (K)
@group(0) @binding(3) var<storage, read> shift: array<vec4<f32>>; // (K)
@group(0) @binding(4) var<storage, read> w: array<vec4<u32>>; // (F,K) in the format of the weights
@group(0) @binding(5) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(6) var<storage, read> bias: array<f32>; // only F0 to F0+F are read
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // only F0 to F0+F are written

const WG: u32 = 32u;
const ROWS: u32 = 4u; // features of a workgroup: 1, 2 or 4

//#import weight
//#import linear_chunk
//#import linear_sum
//#import linear_dots
//#import erf
//#import activate
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let f = group_number(group) * ROWS;
    if (f >= p.F) {
        return;
    }
    let K4 = p.K >> 2u;
    var total = vec4<f32>();
    for (var i = lane; i < K4; i += WG) {
        total += x[i];
    }
    let mean = dot(sum_over_lanes(total, lane), vec4<f32>(1.0)) / f32(p.K);
    var squares = vec4<f32>();
    for (var i = lane; i < K4; i += WG) {
        let d = x[i] - mean;
        squares += d * d;
    }
    let rstd = inverseSqrt(dot(sum_over_lanes(squares, lane), vec4<f32>(1.0)) / f32(p.K) + p.Eps);

    // Beyond the last feature, the last is computed again and not stored.
    let f1 = min(f + 1u, p.F - 1u);
    let f2 = min(f + 2u, p.F - 1u);
    let f3 = min(f + 3u, p.F - 1u);
    var sums = vec4<f32>();
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
            sums += dots((x[at] - mean) * rstd * gain[at] + shift[at], w0, w1, w2, w3);
        }
    }
    sums = sum_over_lanes(sums, lane);
    // Every lane has all sums; feature row is stored by lane row.
    for (var row = lane; row < ROWS; row += WG) {
        if (f + row < p.F) {
            let at = p.F0 + f + row;
            var v = sums[row];
            if (p.Bias == 1u) {
                v += bias[at];
            }
            y[at] = activate(v);
        }
    }
}
