// The error function.
fn erf(v: f32) -> f32 {
    // Abramowitz and Stegun 7.1.26, |error| < 1.5e-7. Beyond 6 the result is ±1 in f32.
    let a = min(abs(v), 6.0);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(v) * (1.0 - poly * exp(-a * a));
}
