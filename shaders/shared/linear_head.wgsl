// The interface of linear.wgsl for rows of x that are read four values at a time.
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
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (T,K)
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>; // (F,K) in the format of the weights
@group(0) @binding(3) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(4) var<storage, read> bias: array<f32>; // (Stride), only F0 to F0+F are read
@group(0) @binding(5) var<storage, read> residual: array<f32>; // (T,Stride), only columns F0 to F0+F are read
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (T,Stride), only columns F0 to F0+F are written
