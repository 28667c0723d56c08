// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], one invocation an output: for any K.
struct Params {
    T: u32,        // tokens
    K: u32,        // values of a token
    F: u32,        // features: rows of w
    F0: u32,       // where the features begin in a row of y and residual
    Stride: u32,   // length of a row of y and residual
    Act: u32,      // ActNone, ActReLU, ActQuickGELU or ActGELU
    Bias: u32,     // 1: add bias
    Residual: u32, // 1: add residual
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,K)
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>; // (F,K) in the format of the weights
@group(0) @binding(3) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(4) var<storage, read> bias: array<f32>; // (Stride), only F0 to F0+F are read
@group(0) @binding(5) var<storage, read> residual: array<f32>; // (T,Stride), only columns F0 to F0+F are read
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (T,Stride), only columns F0 to F0+F are written

const WG: u32 = 64u;

//#import weight
//#import erf
//#import activate
//#import linear_out
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let t = i / p.F;
    let f = i % p.F;
    if (t >= p.T) {
        return;
    }
    let start = t * p.K;
    var sum = 0.0;
    for (var k = 0u; k < p.K; k++) {
        sum += x[start + k] * weight1(f, k);
    }
    store(t, f, sum);
}
