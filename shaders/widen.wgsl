// y = x as f32, where x is f16, two values a word.
struct Params {
    N: u32, // values, a multiple of 4
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>; // (N/2)
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // (N)

const WG: u32 = 64u;

//#import grid
//#import four_f16

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (4u * i < p.N) {
        y[i] = widened(x[i]);
    }
}
