//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], for many tokens: a workgroup makes a tile of 128 tokens × 128 features,
// an invocation 8 × 8 of it, in accumulators that each have a name: an array indexed in a loop would leave the registers.

struct Params {
    T: u32,        // tokens
    K: u32,        // values of a token
    F: u32,        // features: rows of w
    F0: u32,       // where the features begin in a row of y and residual
    Stride: u32,   // length of a row of y and residual
    Act: u32,      // ActNone, ActReLU, ActQuickGELU or ActGELU
    Bias: u32,     // 1: add bias
    Residual: u32, // 1: add residual
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (T,K)
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>; // (F,K) in the format of the weights
@group(0) @binding(3) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(4) var<storage, read> bias: array<f32>; // (Stride), only F0 to F0+F are read
@group(0) @binding(5) var<storage, read> residual: array<f32>; // (T,Stride), only columns F0 to F0+F are read
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (T,Stride), only columns F0 to F0+F are written

const WG: u32 = 256u;
const SIDE: u32 = 128u; // tokens and features of a tile
const DEEP: u32 = 16u; // values of K in workgroup memory at a time
const QUADS: u32 = 32u; // SIDE / 4
const STEPS: u32 = 4u; // DEEP / 4
const SPACE: u32 = 512u; // DEEP * QUADS

//#import weight
//#import linear_out
//#import grid

// DEEP × SIDE values each, turned so that four tokens or features with one k are one vec4; 16 KiB together.
var<workgroup> xs: array<vec4<f32>, SPACE>;
var<workgroup> ws: array<vec4<f32>, SPACE>;

// Where four tokens or features lie for one k: shifted by k, so that neighbouring invocations write to different banks.
fn place(k: u32, quad: u32) -> u32 {
    return k * QUADS + (quad ^ ((k >> 2u) << 1u));
}

fn x_or_zero(t: u32, k4: u32) -> vec4<f32> {
    if (t < p.T && k4 < (p.K >> 2u)) {
        return x[t * (p.K >> 2u) + k4];
    }
    return vec4<f32>();
}

fn w_or_zero(f: u32, k4: u32) -> vec4<f32> {
    if (f < p.F && k4 < (p.K >> 2u)) {
        return weight4(f, k4);
    }
    return vec4<f32>();
}

// Takes the 4 × 4 values of step (4 values of k) and quad to workgroup memory; the first half of the workgroup those of x, the other those of w.
fn load(t0: u32, f0: u32, k0: u32, lane: u32) {
    let part = lane % 128u;
    let step = part % STEPS;
    let quad = part / STEPS;
    let k4 = (k0 >> 2u) + step;
    if (lane < 128u) {
        let first = t0 + quad * 4u;
        let r0 = x_or_zero(first, k4);
        let r1 = x_or_zero(first + 1u, k4);
        let r2 = x_or_zero(first + 2u, k4);
        let r3 = x_or_zero(first + 3u, k4);
        xs[place(4u * step, quad)] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
        xs[place(4u * step + 1u, quad)] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
        xs[place(4u * step + 2u, quad)] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
        xs[place(4u * step + 3u, quad)] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
    } else {
        let first = f0 + quad * 4u;
        let r0 = w_or_zero(first, k4);
        let r1 = w_or_zero(first + 1u, k4);
        let r2 = w_or_zero(first + 2u, k4);
        let r3 = w_or_zero(first + 3u, k4);
        ws[place(4u * step, quad)] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
        ws[place(4u * step + 1u, quad)] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
        ws[place(4u * step + 2u, quad)] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
        ws[place(4u * step + 3u, quad)] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
    }
}

fn store4(t: u32, f: u32, v: vec4<f32>) {
    if (t >= p.T) {
        return;
    }
    if (f < p.F) {
        store(t, f, v.x);
    }
    if (f + 1u < p.F) {
        store(t, f + 1u, v.y);
    }
    if (f + 2u < p.F) {
        store(t, f + 2u, v.z);
    }
    if (f + 3u < p.F) {
        store(t, f + 3u, v.w);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Tokens vary fastest, so that workgroups with the same weights run near each other in time.
    let parts = (p.T + SIDE - 1u) / SIDE;
    let n = group_number(group);
    let t0 = n % parts * SIDE;
    let f0 = n / parts * SIDE;
    if (f0 >= p.F) {
        return;
    }
    let column = lane % 16u;
    let row = lane / 16u;
    var a0l = vec4<f32>();
    var a0h = vec4<f32>();
    var a1l = vec4<f32>();
    var a1h = vec4<f32>();
    var a2l = vec4<f32>();
    var a2h = vec4<f32>();
    var a3l = vec4<f32>();
    var a3h = vec4<f32>();
    var a4l = vec4<f32>();
    var a4h = vec4<f32>();
    var a5l = vec4<f32>();
    var a5h = vec4<f32>();
    var a6l = vec4<f32>();
    var a6h = vec4<f32>();
    var a7l = vec4<f32>();
    var a7h = vec4<f32>();
    for (var k0 = 0u; k0 < p.K; k0 += DEEP) {
        load(t0, f0, k0, lane);
        workgroupBarrier();
        for (var k = 0u; k < DEEP; k++) {
            let xl = xs[place(k, row)];
            let xh = xs[place(k, row + 16u)];
            let wl = ws[place(k, column)];
            let wh = ws[place(k, column + 16u)];
            a0l += xl.x * wl;
            a0h += xl.x * wh;
            a1l += xl.y * wl;
            a1h += xl.y * wh;
            a2l += xl.z * wl;
            a2h += xl.z * wh;
            a3l += xl.w * wl;
            a3h += xl.w * wh;
            a4l += xh.x * wl;
            a4h += xh.x * wh;
            a5l += xh.y * wl;
            a5h += xh.y * wh;
            a6l += xh.z * wl;
            a6h += xh.z * wh;
            a7l += xh.w * wl;
            a7h += xh.w * wh;
        }
        workgroupBarrier();
    }
    let t = t0 + row * 4u;
    let f = f0 + column * 4u;
    store4(t, f, a0l);
    store4(t, f + 64u, a0h);
    store4(t + 1u, f, a1l);
    store4(t + 1u, f + 64u, a1h);
    store4(t + 2u, f, a2l);
    store4(t + 2u, f + 64u, a2h);
    store4(t + 3u, f, a3l);
    store4(t + 3u, f + 64u, a3h);
    store4(t + 64u, f, a4l);
    store4(t + 64u, f + 64u, a4h);
    store4(t + 65u, f, a5l);
    store4(t + 65u, f + 64u, a5h);
    store4(t + 66u, f, a6l);
    store4(t + 66u, f + 64u, a6h);
    store4(t + 67u, f, a7l);
    store4(t + 67u, f + 64u, a7h);
}
