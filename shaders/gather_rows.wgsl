// y[r] = x[rows[r]]: some rows of a matrix, in any order.
struct Params {
    R: u32, // rows of y
    D: u32, // values in a row
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,D)
@group(0) @binding(2) var<storage, read> rows: array<u32>; // (R)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (R,D)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let r = i / p.D;
    if (r >= p.R) {
        return;
    }
    y[i] = x[rows[r] * p.D + i % p.D];
}
