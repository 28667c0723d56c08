// Sixteen neighbouring values of a weight row, the i-th such.
fn pairs(q: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}

fn four(row: u32, i: u32) -> Four {
    let at = row * (p.K >> 3u) + 2u * i;
    let a = w[at];
    let b = w[at + 1u];
    return Four(pairs(a.xy), pairs(a.zw), pairs(b.xy), pairs(b.zw));
}
