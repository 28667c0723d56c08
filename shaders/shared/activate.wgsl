// What p.Act applies to a sum. Needs `erf`.
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
