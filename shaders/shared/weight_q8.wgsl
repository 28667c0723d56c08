// A weight matrix (rows, K) as signed bytes, four a word, with one f16 scale for each block of 32; K is a multiple of 64.
fn scale_of(row: u32, block: u32) -> f32 {
    let i = row * (p.K >> 5u) + block;
    return unpack2x16float(s[i >> 1u])[i & 1u];
}

fn signed_bytes(word: u32) -> vec4<f32> {
    let i = bitcast<i32>(word);
    return vec4<f32>(f32(extractBits(i, 0u, 8u)), f32(extractBits(i, 8u, 8u)), f32(extractBits(i, 16u, 8u)), f32(extractBits(i, 24u, 8u)));
}

fn weight1(row: u32, k: u32) -> f32 {
    return weight4(row, k >> 2u)[k & 3u];
}

fn weight4(row: u32, k4: u32) -> vec4<f32> {
    let i = row * (p.K >> 2u) + k4;
    return scale_of(row, k4 >> 3u) * signed_bytes(w[i >> 2u][i & 3u]);
}
