// Values of x that each lane reads for itself.
const FOURS: u32 = 1u;

fn bring(at: u32, lane: u32) -> vec4<f32> {
    return vec4<f32>();
}

// Four vec4s of x from `at` on.
fn near(v: vec4<f32>, i: u32, at: u32) -> Four {
    return Four(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
}
