// Values of x that all lanes of a subgroup of 4·FOURS need: each lane reads one vec4, and has the others from its neighbours. K is a multiple of 16·FOURS.
const FOURS: u32 = 2u; // 1 or 2

fn bring(at: u32, lane: u32) -> vec4<f32> {
    return x[at + lane % (4u * FOURS)];
}

// The i-th four vec4s of x from `at` on, v being what bring(at) gave.
fn near(v: vec4<f32>, i: u32, at: u32) -> Four {
    return Four(subgroupShuffle(v, 4u * i), subgroupShuffle(v, 4u * i + 1u), subgroupShuffle(v, 4u * i + 2u), subgroupShuffle(v, 4u * i + 3u));
}
