// A sum of products, rows() × columns() results of depth() terms, for many of each: a workgroup makes a tile of 128 × 128, an invocation 8 × 8 of it,
// in accumulators that each have a name: an array indexed in a loop would leave the registers. The kernel brings load, which takes DEEP terms
// to workgroup memory, place, which says where they lie, and store4.
const WG: u32 = 256u;
const SIDE: u32 = 128u; // rows and columns of a tile
const DEEP: u32 = 16u; // terms in workgroup memory at a time
const QUADS: u32 = 32u; // SIDE / 4
const STEPS: u32 = 4u; // DEEP / 4
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
    for (var d0 = 0u; d0 < depth(); d0 += DEEP) {
        load(r0, c0, d0, lane);
        workgroupBarrier();
        for (var d = 0u; d < DEEP; d++) {
            let xl = xs[place(d, row)];
            let xh = xs[place(d, row + 16u)];
            let wl = ws[place(d, column)];
            let wh = ws[place(d, column + 16u)];
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
    let r = r0 + row * 4u;
    let c = c0 + column * 4u;
    store4(r, c, a0l);
    store4(r, c + 64u, a0h);
    store4(r + 1u, c, a1l);
    store4(r + 1u, c + 64u, a1h);
    store4(r + 2u, c, a2l);
    store4(r + 2u, c + 64u, a2h);
    store4(r + 3u, c, a3l);
    store4(r + 3u, c + 64u, a3h);
    store4(r + 64u, c, a4l);
    store4(r + 64u, c + 64u, a4h);
    store4(r + 65u, c, a5l);
    store4(r + 65u, c + 64u, a5h);
    store4(r + 66u, c, a6l);
    store4(r + 66u, c + 64u, a6h);
    store4(r + 67u, c, a7l);
    store4(r + 67u, c + 64u, a7h);
}
