// One step of AdamW over the values First … First+N of w, g, m and v, with g scaled so that the norm of all gradients is at most Clip:
// torch's clip_grad_norm_ and torch.optim.AdamW.
struct Params {
    First: u32,        // place of the first value
    N: u32,            // values
    Norms: u32,        // square sums of all gradients
    LR: f32,           // learning rate
    Beta1: f32,
    Beta2: f32,
    Eps: f32,
    Decay: f32,        // weight decay
    Correction1: f32,  // 1 − Beta1^step, steps counted from 1
    Correction2: f32,  // 1 − Beta2^step
    Clip: f32,         // most norm of all gradients; 0: any
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> norms: array<f32>; // (Norms)
@group(0) @binding(3) var<storage, read_write> w: array<f32>;
@group(0) @binding(4) var<storage, read_write> m: array<f32>; // running mean of g
@group(0) @binding(5) var<storage, read_write> v: array<f32>; // running mean of g²

const WG: u32 = 64u;

//#import grid

fn clip_factor() -> f32 {
    if (p.Clip <= 0.0) {
        return 1.0;
    }
    var squares = 0.0;
    for (var n = 0u; n < p.Norms; n++) {
        squares += norms[n];
    }
    return min(1.0, p.Clip / (sqrt(squares) + 1e-6));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n >= p.N) {
        return;
    }
    let i = p.First + n;
    let gradient = g[i] * clip_factor();
    let mean = m[i] + (gradient - m[i]) * (1.0 - p.Beta1);
    let square = v[i] * p.Beta2 + gradient * gradient * (1.0 - p.Beta2);
    m[i] = mean;
    v[i] = square;
    w[i] = w[i] * (1.0 - p.LR * p.Decay) - p.LR / p.Correction1 * mean / (sqrt(square) / sqrt(p.Correction2) + p.Eps);
}
