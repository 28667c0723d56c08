// y[At] += Σ x[i] over i < N. One workgroup.
struct Params {
    N: u32,   // values
    At: u32,  // place of the sum in y
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (N)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const WG: u32 = 256u;

//#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.N; i += WG) {
        sum += x[i];
    }
    sum = sum_over_group(sum, lane);
    if (lane == 0u) {
        y[p.At] += sum;
    }
}
