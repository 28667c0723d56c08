// The interface of linear_weight_back.wgsl for rows of x and dw that are read and written four values at a time.
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
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // (T,K)
@group(0) @binding(3) var<storage, read_write> dw: array<vec4<f32>>; // (F,K)
@group(0) @binding(4) var<storage, read_write> db: array<f32>; // (F)

// Adds the sums of feature f for four neighbouring values from k on to dw, where they exist. k is a multiple of 4.
fn store4(f: u32, k: u32, sum: vec4<f32>) {
    if (f < p.F && k < p.K) {
        dw[f * (p.K >> 2u) + (k >> 2u)] += sum;
    }
}
