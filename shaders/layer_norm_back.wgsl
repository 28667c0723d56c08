// dx[t] = rstd · (g − mean(g) − x̂ · mean(g · x̂)), plus add[t], where g = dy[t] · weight and x̂ = (x[t] − mean) · rstd, mean and rstd of the D
// values of x[t]: the gradient of layer_norm.wgsl for x. One workgroup a row.
struct Params {
    T: u32,
    D: u32,
    Eps: f32,
    Add: u32, // AddNothing or AddTensor
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,D)
@group(0) @binding(2) var<storage, read> weight: array<f32>; // (D)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (T,D)
@group(0) @binding(4) var<storage, read> add: array<f32>; // (T,D)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (T,D)

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
    let D = f32(p.D);
    var sum = 0.0;
    for (var d = lane; d < p.D; d += WG) {
        sum += x[start + d];
    }
    let mean = sum_over_group(sum, lane) / D;
    var squares = 0.0;
    var slope = 0.0;
    var product = 0.0;
    for (var d = lane; d < p.D; d += WG) {
        let v = x[start + d] - mean;
        let g = dy[start + d] * weight[d];
        squares += v * v;
        slope += g;
        product += g * v;
    }
    let rstd = inverseSqrt(sum_over_group(squares, lane) / D + p.Eps);
    slope = sum_over_group(slope, lane) / D;
    product = sum_over_group(product, lane) / D * rstd * rstd;
    for (var d = lane; d < p.D; d += WG) {
        var v = rstd * (dy[start + d] * weight[d] - slope - (x[start + d] - mean) * product);
        if (p.Add == 1u) {
            v += add[start + d];
        }
        dx[start + d] = v;
    }
}
