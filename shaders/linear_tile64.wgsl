//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], as linear_tile, in tiles of 64 tokens × 64 features and 4 × 4 of it an
// invocation: for shapes that have too few large tiles to fill a device.

//#import linear_head

const WG: u32 = 256u;
const SIDE: u32 = 64u; // tokens and features of a tile
const DEEP: u32 = 32u; // values of K in workgroup memory at a time
const QUADS: u32 = 16u; // SIDE / 4
const STEPS: u32 = 8u; // DEEP / 4
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
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var k0 = 0u; k0 < p.K; k0 += DEEP) {
        load(t0, f0, k0, lane);
        workgroupBarrier();
        for (var k = 0u; k < DEEP; k++) {
            let xv = xs[place(k, row)];
            let wv = ws[place(k, column)];
            a0 += xv.x * wv;
            a1 += xv.y * wv;
            a2 += xv.z * wv;
            a3 += xv.w * wv;
        }
        workgroupBarrier();
    }
    let t = t0 + row * 4u;
    let f = f0 + column * 4u;
    store4(t, f, a0);
    store4(t + 1u, f, a1);
    store4(t + 2u, f, a2);
    store4(t + 3u, f, a3);
}
