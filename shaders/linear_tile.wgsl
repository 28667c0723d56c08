//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], for many tokens: a workgroup makes a tile of 128 tokens × 128 features,
// an invocation 8 × 8 of it, in accumulators that each have a name: an array indexed in a loop would leave the registers.

//#import linear_head

const WG: u32 = 256u;
const SIDE: u32 = 128u; // tokens and features of a tile
const DEEP: u32 = 16u; // values of K in workgroup memory at a time
const QUADS: u32 = 32u; // SIDE / 4
const STEPS: u32 = 4u; // DEEP / 4
const SPACE: u32 = 512u; // DEEP * QUADS

//#import weight
//#import linear_out
//#import grid
//#import linear_tiles
//#import linear_store4

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
