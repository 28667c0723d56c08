// The interface of tile_64 and tile_128 for linear: rows are tokens, columns features, terms the values of K.
fn rows() -> u32 {
    return p.T;
}

fn columns() -> u32 {
    return p.F;
}

fn depth() -> u32 {
    return p.K;
}

// Where four tokens or features lie for one k: shifted by k, so that neighbouring invocations write to different banks.
fn place(k: u32, quad: u32) -> u32 {
    return k * QUADS + (quad ^ ((k >> 2u) << 1u));
}

fn x_or_zero(t: u32, k4: u32) -> vec4<f32> {
    if (t < p.T && k4 < (p.K >> 2u)) {
        return x[t * (p.K >> 2u) + k4];
    }
    return vec4<f32>();
}

fn w_or_zero(f: u32, k4: u32) -> vec4<f32> {
    if (f < p.F && k4 < (p.K >> 2u)) {
        return weight4(f, k4);
    }
    return vec4<f32>();
}

// Takes the 4 × 4 values of step (4 values of k) and quad to workgroup memory; the first half of the workgroup those of x, the other those of w.
fn load(t0: u32, f0: u32, k0: u32, lane: u32) {
    let part = lane % 128u;
    let step = part % STEPS;
    let quad = part / STEPS;
    let k4 = (k0 >> 2u) + step;
    if (lane < 128u) {
        let first = t0 + quad * 4u;
        let r0 = x_or_zero(first, k4);
        let r1 = x_or_zero(first + 1u, k4);
        let r2 = x_or_zero(first + 2u, k4);
        let r3 = x_or_zero(first + 3u, k4);
        xs[place(4u * step, quad)] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
        xs[place(4u * step + 1u, quad)] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
        xs[place(4u * step + 2u, quad)] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
        xs[place(4u * step + 3u, quad)] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
    } else {
        let first = f0 + quad * 4u;
        let r0 = w_or_zero(first, k4);
        let r1 = w_or_zero(first + 1u, k4);
        let r2 = w_or_zero(first + 2u, k4);
        let r3 = w_or_zero(first + 3u, k4);
        ws[place(4u * step, quad)] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
        ws[place(4u * step + 1u, quad)] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
        ws[place(4u * step + 2u, quad)] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
        ws[place(4u * step + 3u, quad)] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
    }
}
