//#kernel layer_norm
// y[t] = (x[t] − mean) / sqrt(variance + Eps) · weight + bias for devices on which a CPU does the work: one invocation a row, four values at a time. D is
// a multiple of 4.
struct Params {
    T: u32,
    D: u32,
    Eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (T,D)
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>; // (D)
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>; // (D)
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // (T,D)

const WG: u32 = 8u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = group_number(group) * WG + lane;
    if (t >= p.T) {
        return;
    }
    let D4 = p.D >> 2u;
    let start = t * D4;
    var total = vec4<f32>();
    for (var d = 0u; d < D4; d++) {
        total += x[start + d];
    }
    let mean = dot(total, vec4<f32>(1.0)) / f32(p.D);
    var squares = vec4<f32>();
    for (var d = 0u; d < D4; d++) {
        let v = x[start + d] - mean;
        squares += v * v;
    }
    let rstd = inverseSqrt(dot(squares, vec4<f32>(1.0)) / f32(p.D) + p.Eps);
    for (var d = 0u; d < D4; d++) {
        y[start + d] = (x[start + d] - mean) * rstd * weight[d] + bias[d];
    }
}
