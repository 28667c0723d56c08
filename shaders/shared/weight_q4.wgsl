// A weight matrix (rows, K) as 4-bit codes, eight a word, lowest bits first, with one word for each block of 32: f16 scale, f16 minimum;
// value = scale·code + minimum. K is a multiple of 32.
fn scale_minimum(row: u32, block: u32) -> vec2<f32> {
    return unpack2x16float(s[row * (p.K >> 5u) + block]);
}

fn four_codes(half: u32) -> vec4<f32> {
    return vec4<f32>(f32(half & 15u), f32((half >> 4u) & 15u), f32((half >> 8u) & 15u), f32((half >> 12u) & 15u));
}

fn weight1(row: u32, k: u32) -> f32 {
    return weight4(row, k >> 2u)[k & 3u];
}

fn weight4(row: u32, k4: u32) -> vec4<f32> {
    let i = row * (p.K >> 3u) + (k4 >> 1u);
    let sm = scale_minimum(row, k4 >> 3u);
    return sm.x * four_codes(w[i >> 2u][i & 3u] >> ((k4 & 1u) << 4u)) + sm.y;
}
