// A weight matrix (rows, K) as f32, one word a value; any K.
fn weight1(row: u32, k: u32) -> f32 {
    let i = row * p.K + k;
    return bitcast<f32>(w[i >> 2u][i & 3u]);
}

// Values (row, 4·k4 … 4·k4+3); K must be a multiple of 4.
fn weight4(row: u32, k4: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(w[row * (p.K >> 2u) + k4]);
}
