// y[To + i] = x[From + i] for i < N: a run of values to another buffer.
struct Params {
    N: u32,     // values
    From: u32,  // of x
    To: u32,    // of y
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (i < p.N) {
        y[p.To + i] = x[p.From + i];
    }
}
