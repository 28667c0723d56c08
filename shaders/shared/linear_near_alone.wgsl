// Values of x that each lane reads for itself, as many at a time as there are weights in a chunk.
const NEAR: u32 = CHUNK;

fn bring(at: u32, lane: u32) -> vec4<f32> {
    return vec4<f32>();
}

// x[at + j].
fn near4(v: vec4<f32>, at: u32, j: u32) -> vec4<f32> {
    return x[at + j];
}
