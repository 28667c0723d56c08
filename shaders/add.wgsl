// y = a + b, value by value.
struct Params {
    N: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (N)
@group(0) @binding(2) var<storage, read> b: array<f32>; // (N)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (N)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (i < p.N) {
        y[i] = a[i] + b[i];
    }
}
