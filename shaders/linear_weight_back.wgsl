// dw[f,k] += Σ_t dy[t, F0+f]·x[t,k] and db[f] += Σ_t dy[t, F0+f]: the gradients of linear.wgsl's sums for w and bias. One invocation a value of
// dw; for any K.
struct Params {
    T: u32,      // tokens
    K: u32,      // values of a token: columns of dw
    F: u32,      // features: rows of dw
    F0: u32,     // where the features begin in a row of dy
    Stride: u32, // length of a row of dy
    Bias: u32,   // 1: add to db
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (T,Stride), only columns F0 to F0+F are read
@group(0) @binding(2) var<storage, read> x: array<f32>; // (T,K)
@group(0) @binding(3) var<storage, read_write> dw: array<f32>; // (F,K)
@group(0) @binding(4) var<storage, read_write> db: array<f32>; // (F)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let f = i / p.K;
    let k = i % p.K;
    if (f >= p.F) {
        return;
    }
    var sum = 0.0;
    var bias = 0.0;
    for (var t = 0u; t < p.T; t++) {
        let v = dy[t * p.Stride + p.F0 + f];
        sum += v * x[t * p.K + k];
        bias += v;
    }
    dw[i] += sum;
    if (p.Bias == 1u && k == 0u) {
        db[f] += bias;
    }
}
