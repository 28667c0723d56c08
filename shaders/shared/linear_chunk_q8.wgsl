// One vec4<u32> of a weight row: 16 values, half a block.
const CHUNK: u32 = 4u;

struct Chunk {
    v0: vec4<f32>,
    v1: vec4<f32>,
    v2: vec4<f32>,
    v3: vec4<f32>,
    scale: f32,
}

fn chunk(row: u32, i: u32) -> Chunk {
    let q = w[row * (p.K >> 4u) + i];
    return Chunk(signed_bytes(q.x), signed_bytes(q.y), signed_bytes(q.z), signed_bytes(q.w), scale_of(row, i >> 1u));
}

fn dot_chunk(c: Chunk, at: u32) -> f32 {
    return c.scale * (dot(c.v0, x[at]) + dot(c.v1, x[at + 1u]) + dot(c.v2, x[at + 2u]) + dot(c.v3, x[at + 3u]));
}
