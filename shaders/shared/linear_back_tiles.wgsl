// The interface of tile_64 and tile_128 for linear_back: rows are tokens, columns the values of K, terms features.
fn rows() -> u32 {
    return p.T;
}

fn columns() -> u32 {
    return p.K;
}

fn depth() -> u32 {
    return p.F;
}

// Where four tokens or columns lie for one feature: shifted by the feature, so that neighbouring invocations write to different banks.
fn place(f: u32, quad: u32) -> u32 {
    return f * QUADS + (quad ^ (f & 15u));
}

fn dy_or_zero(t: u32, f: u32) -> f32 {
    if (t < p.T && f < p.F) {
        return dy[t * p.Stride + p.F0 + f];
    }
    return 0.0;
}

fn w_or_zero(f: u32, k4: u32) -> vec4<f32> {
    if (f < p.F && k4 < (p.K >> 2u)) {
        return weight4(f, k4);
    }
    return vec4<f32>();
}

// Takes quad number i of each operand to workgroup memory. Neighbouring i read neighbouring features of dy and neighbouring columns of w.
fn load_quad(t0: u32, k0: u32, f0: u32, i: u32) {
    let f = i % DEEP;
    let t = t0 + i / DEEP * 4u;
    xs[place(f, i / DEEP)] = vec4<f32>(dy_or_zero(t, f0 + f), dy_or_zero(t + 1u, f0 + f), dy_or_zero(t + 2u, f0 + f), dy_or_zero(t + 3u, f0 + f));
    ws[place(i / QUADS, i % QUADS)] = w_or_zero(f0 + i / QUADS, (k0 >> 2u) + i % QUADS);
}

fn load(t0: u32, k0: u32, f0: u32, lane: u32) {
    load_quad(t0, k0, f0, lane);
    load_quad(t0, k0, f0, lane + WG);
}
