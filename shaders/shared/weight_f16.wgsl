// A weight matrix (rows, K) as f16, two values a word; K is a multiple of 8.
fn weight1(row: u32, k: u32) -> f32 {
    let i = (row * p.K + k) >> 1u;
    return unpack2x16float(w[i >> 2u][i & 3u])[k & 1u];
}

fn weight4(row: u32, k4: u32) -> vec4<f32> {
    let i = row * (p.K >> 2u) + k4;
    let two = w[i >> 1u];
    let q = select(two.xy, two.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}
