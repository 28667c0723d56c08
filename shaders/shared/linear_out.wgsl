// Takes the sum of token t and feature f to y, with bias, activation and residual. Needs `activate`; the caller has checked t < T and f < F.
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
