// The N values of w from place First on, scaled so that their norm is Norm; zeros stay. One workgroup.
struct Params {
    First: u32,  // place of the first value
    N: u32,      // values
    Norm: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;

const WG: u32 = 256u;

//#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var squares = 0.0;
    for (var i = lane; i < p.N; i += WG) {
        let v = w[p.First + i];
        squares += v * v;
    }
    squares = sum_over_group(squares, lane);
    let scale = select(0.0, p.Norm * inverseSqrt(squares), squares > 0.0);
    for (var i = lane; i < p.N; i += WG) {
        w[p.First + i] *= scale;
    }
}
