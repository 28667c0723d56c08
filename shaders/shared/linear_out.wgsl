// What follows the sum over K in every linear kernel: bias, activation, residual.
fn activate(v: f32) -> f32 {
    if (p.Act == 1u) {
        return max(v, 0.0);
    }
    if (p.Act == 2u) {
        return v / (1.0 + exp(min(-1.702 * v, 80.0)));
    }
    if (p.Act == 3u) {
        return 0.5 * v * (1.0 + erf(0.70710678 * v));
    }
    return v;
}

// Takes the sum of token t and feature f to y; the caller has checked t < T and f < F.
fn store(t: u32, f: u32, sum: f32) {
    var v = sum;
    if (p.Bias == 1u) {
        v += bias[p.F0 + f];
    }
    v = activate(v);
    let i = t * p.Stride + p.F0 + f;
    if (p.Residual == 1u) {
        v += residual[i];
    }
    y[i] = v;
}
