// The first state of a vision transformer: y[b,0] = class + position[0]; y[b,i] = patches[b,i−1] + position[i].
struct Params {
    B: u32, // images
    N: u32, // states of an image: patches + 1
    D: u32, // values in a row
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> patches: array<f32>; // (B·(N−1),D)
@group(0) @binding(2) var<storage, read> cls: array<f32>; // (D)
@group(0) @binding(3) var<storage, read> position: array<f32>; // (N,D)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (B·N,D)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (i >= p.B * p.N * p.D) {
        return;
    }
    let d = i % p.D;
    let n = i / p.D % p.N;
    let b = i / (p.D * p.N);
    var v = cls[d];
    if (n > 0u) {
        v = patches[(b * (p.N - 1u) + n - 1u) * p.D + d];
    }
    y[i] = v + position[n * p.D + d];
}
