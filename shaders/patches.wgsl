// The square patches of B images as rows, in the order of a flattened Conv2d weight (channel, row, column), so that a convolution whose stride is
// its size becomes a matrix product. With G = S/P, patch gy·G + gx is row b·G·G + gy·G + gx of y.
struct Params {
    B: u32, // images
    S: u32, // pixels along a side of an image, a multiple of P
    P: u32, // pixels along a side of a patch
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (B,3,S,S)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (B·G·G,3·P·P)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (i >= 3u * p.B * p.S * p.S) {
        return;
    }
    let side = p.S / p.P;
    let column = i % p.P;
    let row = i / p.P % p.P;
    let channel = i / (p.P * p.P) % 3u;
    let n = i / (3u * p.P * p.P);
    let gx = n % side;
    let gy = n / side % side;
    let b = n / (side * side);
    y[i] = x[((b * 3u + channel) * p.S + gy * p.P + row) * p.S + gx * p.P + column];
}
