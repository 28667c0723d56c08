// The products of one token's values with those of ROWS features.
fn dots(v: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    var d = vec4<f32>(dot(v, w0), 0.0, 0.0, 0.0);
    if (ROWS > 1u) {
        d.y = dot(v, w1);
    }
    if (ROWS > 2u) {
        d.z = dot(v, w2);
        d.w = dot(v, w3);
    }
    return d;
}
