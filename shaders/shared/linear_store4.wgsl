// Stores four neighbouring features of a token, those of them that exist.
fn store4(t: u32, f: u32, v: vec4<f32>) {
    if (t >= p.T) {
        return;
    }
    if (f < p.F) {
        store(t, f, v.x);
    }
    if (f + 1u < p.F) {
        store(t, f + 1u, v.y);
    }
    if (f + 2u < p.F) {
        store(t, f + 2u, v.z);
    }
    if (f + 3u < p.F) {
        store(t, f + 3u, v.w);
    }
}
