// The interface of tile_64 and tile_128 for linear_weight_back: rows are features, columns the values of K, terms tokens.
fn rows() -> u32 {
    return p.F;
}

fn columns() -> u32 {
    return p.K;
}

fn depth() -> u32 {
    return p.T;
}

fn place(t: u32, quad: u32) -> u32 {
    return t * QUADS + quad;
}

fn dy_or_zero(t: u32, f: u32) -> f32 {
    if (t < p.T && f < p.F) {
        return dy[t * p.Stride + p.F0 + f];
    }
    return 0.0;
}

fn x_or_zero(t: u32, k4: u32) -> vec4<f32> {
    if (t < p.T && k4 < (p.K >> 2u)) {
        return x[t * (p.K >> 2u) + k4];
    }
    return vec4<f32>();
}

// Takes quad number i of each operand to workgroup memory. Neighbouring i read neighbouring features and columns.
fn load_quad(f0: u32, k0: u32, t0: u32, i: u32) {
    let t = t0 + i / QUADS;
    let f = f0 + i % QUADS * 4u;
    xs[i] = vec4<f32>(dy_or_zero(t, f), dy_or_zero(t, f + 1u), dy_or_zero(t, f + 2u), dy_or_zero(t, f + 3u));
    ws[i] = x_or_zero(t, (k0 >> 2u) + i % QUADS);
}

fn load(f0: u32, k0: u32, t0: u32, lane: u32) {
    load_quad(f0, k0, t0, lane);
    load_quad(f0, k0, t0, lane + WG);
}

// Adds the sums over all tokens of the features that belong to tile n to db, in the one tile of them that lies at the left.
fn bias(n: u32, lane: u32) {
    let f = n * SIDE + lane;
    if (p.Bias == 0u || lane >= SIDE || f >= p.F) {
        return;
    }
    var sum = 0.0;
    for (var t = 0u; t < p.T; t++) {
        sum += dy[t * p.Stride + p.F0 + f];
    }
    db[f] += sum;
}
