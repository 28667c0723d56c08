// y[index[r]] = x[r], and zeros in all other rows: the backward of gather_rows where no row is picked twice. One workgroup a row of y, which
// looks itself up in index.
struct Params {
    T: u32, // rows of y
    R: u32, // rows of x
    D: u32, // values in a row
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (R,D)
@group(0) @binding(2) var<storage, read> index: array<u32>; // (R), strictly ascending
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (T,D)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = group_number(group);
    if (t >= p.T) {
        return;
    }
    // The first r with index[r] ≥ t lies in first … last.
    var first = 0u;
    var last = p.R;
    while (first < last) {
        let middle = (first + last) >> 1u;
        if (index[middle] < t) {
            first = middle + 1u;
        } else {
            last = middle;
        }
    }
    var found = false;
    if (first < p.R) {
        found = index[first] == t;
    }
    for (var d = lane; d < p.D; d += WG) {
        var v = 0.0;
        if (found) {
            v = x[first * p.D + d];
        }
        y[t * p.D + d] = v;
    }
}
