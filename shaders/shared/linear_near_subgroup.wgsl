// Values of x that all lanes of a subgroup of NEAR need: each lane reads one of NEAR vec4s, and has the others from its neighbours. K is a multiple of
// 4·NEAR, NEAR one of CHUNK.
const NEAR: u32 = 8u;

fn bring(at: u32, lane: u32) -> vec4<f32> {
    return x[at + lane % NEAR];
}

// x[at + j], v being what bring(at) gave.
fn near4(v: vec4<f32>, at: u32, j: u32) -> vec4<f32> {
    return subgroupShuffle(v, j);
}
