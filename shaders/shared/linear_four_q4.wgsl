// Sixteen neighbouring values of a weight row, the i-th such: half a block. Codes are taken for bytes that are parts of 255, which a CPU unpacks in the fewest
// steps.
fn even(codes: u32) -> vec4<f32> {
    return 255.0 * unpack4x8unorm(codes & 0x0f0f0f0fu);
}

fn four(row: u32, i: u32) -> Four {
    let block = w[row * (p.K >> 5u) + (i >> 1u)];
    let q = select(block.xy, block.zw, (i & 1u) == 1u);
    let v = scale_minimum(row, i >> 1u);
    let a = v.x * even(q.x) + v.y;
    let b = v.x * even(q.x >> 4u) + v.y;
    let c = v.x * even(q.y) + v.y;
    let d = v.x * even(q.y >> 4u) + v.y;
    return Four(
        vec4<f32>(a.x, b.x, a.y, b.y),
        vec4<f32>(a.z, b.z, a.w, b.w),
        vec4<f32>(c.x, d.x, c.y, d.y),
        vec4<f32>(c.z, d.z, c.w, d.w),
    );
}
