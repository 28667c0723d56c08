// Sixteen neighbouring values of a weight row, the i-th such.
fn four(row: u32, i: u32) -> Four {
    let at = row * (p.K >> 2u) + 4u * i;
    return Four(bitcast<vec4<f32>>(w[at]), bitcast<vec4<f32>>(w[at + 1u]), bitcast<vec4<f32>>(w[at + 2u]), bitcast<vec4<f32>>(w[at + 3u]));
}
