// A sum of products, rows() × columns() results of depth() terms, for many of each: a workgroup makes a tile of 64 × 64, an invocation 4 × 4 of it,
// in accumulators that each have a name: an array indexed in a loop would leave the registers. The kernel brings load, which takes DEEP terms
// to workgroup memory, place, which says where they lie, and store4.
const WG: u32 = 256u;
const SIDE: u32 = 64u; // rows and columns of a tile
const DEEP: u32 = 32u; // terms in workgroup memory at a time
const QUADS: u32 = 16u; // SIDE / 4
const STEPS: u32 = 8u; // DEEP / 4
const SPACE: u32 = 512u; // DEEP * QUADS

// DEEP × SIDE values each, four rows or columns of one term in a vec4; 16 KiB together.
var<workgroup> xs: array<vec4<f32>, SPACE>;
var<workgroup> ws: array<vec4<f32>, SPACE>;

// Makes tile number n; all invocations of a workgroup must call.
fn tile(n: u32, lane: u32) {
    // Rows vary fastest, so that workgroups with the same columns run near each other in time.
    let parts = (rows() + SIDE - 1u) / SIDE;
    let r0 = n % parts * SIDE;
    let c0 = n / parts * SIDE;
    if (c0 >= columns()) {
        return;
    }
    let column = lane % 16u;
    let row = lane / 16u;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var d0 = 0u; d0 < depth(); d0 += DEEP) {
        load(r0, c0, d0, lane);
        workgroupBarrier();
        for (var d = 0u; d < DEEP; d++) {
            let xv = xs[place(d, row)];
            let wv = ws[place(d, column)];
            a0 += xv.x * wv;
            a1 += xv.y * wv;
            a2 += xv.z * wv;
            a3 += xv.w * wv;
        }
        workgroupBarrier();
    }
    let r = r0 + row * 4u;
    let c = c0 + column * 4u;
    store4(r, c, a0);
    store4(r + 1u, c, a1);
    store4(r + 2u, c, a2);
    store4(r + 3u, c, a3);
}
