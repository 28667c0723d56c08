// Four columns of a head of dy, for heads of any size. Needs `rows_any`.
fn upstream1(i: u32) -> f32 {
    return dy[i >> 2u][i & 3u];
}

fn upstream4(t: u32, h: u32, c: u32) -> vec4<f32> {
    let i = (t * p.Heads + h) * p.Dh + 4u * c;
    return select(vec4<f32>(), vec4<f32>(upstream1(i), upstream1(i + 1u), upstream1(i + 2u), upstream1(i + 3u)), within(c));
}
