// Columns 4·c to 4·c+3 of a head that begins at value `start` of dqkv; those beyond the head are not stored. Needs `rows`.
fn result4(start: u32, c: u32) -> vec4<f32> {
    let i = start + 4u * c;
    return vec4<f32>(dqkv[i], dqkv[i + 1u], dqkv[i + 2u], dqkv[i + 3u]);
}

fn store4(start: u32, c: u32, v: vec4<f32>) {
    let i = start + 4u * c;
    let ok = within(c);
    dqkv[i] = v.x;
    if (ok.y) {
        dqkv[i + 1u] = v.y;
    }
    if (ok.z) {
        dqkv[i + 2u] = v.z;
    }
    if (ok.w) {
        dqkv[i + 3u] = v.w;
    }
}
