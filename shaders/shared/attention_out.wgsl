// Four columns of a head in the result, n = t·Heads + h; those beyond the head are not stored. Needs `rows`.
fn result4(n: u32, c: u32) -> vec4<f32> {
    let i = n * p.Dh + 4u * c;
    return vec4<f32>(y[i], y[i + 1u], y[i + 2u], y[i + 3u]);
}

fn store4(n: u32, c: u32, v: vec4<f32>) {
    let i = n * p.Dh + 4u * c;
    let ok = within(c);
    y[i] = v.x;
    if (ok.y) {
        y[i + 1u] = v.y;
    }
    if (ok.z) {
        y[i + 2u] = v.z;
    }
    if (ok.w) {
        y[i + 3u] = v.w;
    }
}
