// dx[t] = (dy[t] − y·(y·dy[t])) / ‖x[t]‖ with y = x[t]/‖x[t]‖: the gradient of normalize; zeros where x[t] is zero. One workgroup a row.
struct Params {
    T: u32,
    D: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,D)
@group(0) @binding(2) var<storage, read> dy: array<f32>; // (T,D)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (T,D)

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
    var squares = 0.0;
    var product = 0.0;
    for (var d = lane; d < p.D; d += WG) {
        let v = x[start + d];
        squares += v * v;
        product += v * dy[start + d];
    }
    squares = sum_over_group(squares, lane);
    product = sum_over_group(product, lane);
    let scale = select(0.0, inverseSqrt(squares), squares > 0.0);
    let along = product * scale * scale;
    for (var d = lane; d < p.D; d += WG) {
        dx[start + d] = (dy[start + d] - along * x[start + d]) * scale;
    }
}
