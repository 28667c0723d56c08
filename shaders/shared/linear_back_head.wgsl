// The interface of linear_back.wgsl for rows of dx that are written four values at a time.
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
@group(0) @binding(4) var<storage, read> add: array<vec4<f32>>; // (T,K)
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // (T,K)

// Takes the sums of token t for four neighbouring values from k on to dx, where they exist. k is a multiple of 4.
fn store4(t: u32, k: u32, sum: vec4<f32>) {
    if (t >= p.T || k >= p.K) {
        return;
    }
    let i = t * (p.K >> 2u) + (k >> 2u);
    var v = sum;
    if (p.Add == 1u) {
        v += add[i];
    } else if (p.Add == 2u) {
        v += dx[i];
    }
    dx[i] = v;
}
