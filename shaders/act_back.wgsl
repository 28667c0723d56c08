// dx = dy · act′(x), value by value: the gradient of what a linear layer applies to its sums.
struct Params {
    N: u32,
    Act: u32, // ActNone, ActReLU, ActQuickGELU or ActGELU
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (N) before the activation
@group(0) @binding(2) var<storage, read> dy: array<f32>; // (N)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (N)

const WG: u32 = 64u;

//#import erf
//#import grid

fn slope(v: f32) -> f32 {
    if (p.Act == 1u) {
        return select(0.0, 1.0, v > 0.0);
    }
    if (p.Act == 2u) {
        let s = 1.0 / (1.0 + exp(min(-1.702 * v, 80.0)));
        return s + 1.702 * v * s * (1.0 - s);
    }
    if (p.Act == 3u) {
        // Φ(v) + v·φ(v)
        return 0.5 * (1.0 + erf(0.70710678 * v)) + 0.39894228 * v * exp(-0.5 * min(v * v, 160.0));
    }
    return 1.0;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    if (i < p.N) {
        dx[i] = dy[i] * slope(x[i]);
    }
}
