// y[i,j] = exp(scale[0]) · a[i]·b[j]: every row of a with every row of b. One invocation makes a block of 4×4 of y.
struct Params {
    B: u32, // rows of a and of b
    S: u32, // values in a row
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (B,S)
@group(0) @binding(2) var<storage, read> b: array<f32>; // (B,S)
@group(0) @binding(3) var<storage, read> scale: array<f32>; // (1)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (B,B)

const WG: u32 = 64u;

//#import grid

fn store4(i: u32, j: u32, v: vec4<f32>) {
    if (i >= p.B) {
        return;
    }
    let at = i * p.B + j;
    y[at] = v.x;
    if (j + 1u < p.B) {
        y[at + 1u] = v.y;
    }
    if (j + 2u < p.B) {
        y[at + 2u] = v.z;
    }
    if (j + 3u < p.B) {
        y[at + 3u] = v.w;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    let across = (p.B + 3u) / 4u;
    let i = n / across * 4u;
    let j = n % across * 4u;
    if (i >= p.B) {
        return;
    }
    // Rows beyond the last are the last again, and are not stored.
    let last = vec4<u32>(p.B - 1u);
    let steps = vec4<u32>(0u, 1u, 2u, 3u);
    let rows = min(vec4<u32>(i) + steps, last) * p.S;
    let columns = min(vec4<u32>(j) + steps, last) * p.S;
    var y0 = vec4<f32>();
    var y1 = vec4<f32>();
    var y2 = vec4<f32>();
    var y3 = vec4<f32>();
    for (var s = 0u; s < p.S; s++) {
        let v = vec4<f32>(b[columns.x + s], b[columns.y + s], b[columns.z + s], b[columns.w + s]);
        y0 += a[rows.x + s] * v;
        y1 += a[rows.y + s] * v;
        y2 += a[rows.z + s] * v;
        y3 += a[rows.w + s] * v;
    }
    let factor = exp(scale[0]);
    store4(i, j, factor * y0);
    store4(i + 1u, j, factor * y1);
    store4(i + 2u, j, factor * y2);
    store4(i + 3u, j, factor * y3);
}
