// y[t] = (x[t] − mean) / sqrt(variance + Eps) · weight + bias over the D values of a row; one workgroup a row.
struct Params {
    T: u32,
    D: u32,
    Eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,D)
@group(0) @binding(2) var<storage, read> weight: array<f32>; // (D)
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (D)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T,D)

const WG: u32 = 64u;

//#import grid
//#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = group_number(group);
    if (t >= p.T) {
        return;
    }
    let start = t * p.D;
    var sum = 0.0;
    for (var d = lane; d < p.D; d += WG) {
        sum += x[start + d];
    }
    let mean = sum_over_group(sum, lane) / f32(p.D);
    var squares = 0.0;
    for (var d = lane; d < p.D; d += WG) {
        let v = x[start + d] - mean;
        squares += v * v;
    }
    let rstd = inverseSqrt(sum_over_group(squares, lane) / f32(p.D) + p.Eps);
    for (var d = lane; d < p.D; d += WG) {
        y[start + d] = (x[start + d] - mean) * rstd * weight[d] + bias[d];
    }
}
