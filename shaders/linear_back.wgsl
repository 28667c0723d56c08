// dx[t,k] = Σ_f dy[t, F0+f]·w[f,k], plus add[t,k] or what dx holds: the gradient of linear.wgsl's sums for x. One invocation an output: for f32
// weights with any K.
struct Params {
    T: u32,      // tokens
    K: u32,      // values of a token: columns of w
    F: u32,      // features: rows of w
    F0: u32,     // where the features begin in a row of dy
    Stride: u32, // length of a row of dy
    Add: u32,    // AddNothing, AddTensor or AddSelf
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (T,Stride), only columns F0 to F0+F are read
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>; // (F,K) in the format of the weights
@group(0) @binding(3) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(4) var<storage, read> add: array<f32>; // (T,K)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (T,K)

const WG: u32 = 64u;

//#import weight_f32
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let t = i / p.K;
    let k = i % p.K;
    if (t >= p.T) {
        return;
    }
    let start = t * p.Stride + p.F0;
    var sum = 0.0;
    for (var f = 0u; f < p.F; f++) {
        sum += dy[start + f] * weight1(f, k);
    }
    if (p.Add == 1u) {
        sum += add[i];
    } else if (p.Add == 2u) {
        sum += dx[i];
    }
    dx[i] = sum;
}
