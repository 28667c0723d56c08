// One vec4<u32> of a weight row: 16 values, half a block.
const CHUNK: u32 = 4u; // vec4s of values in it

struct Chunk {
    q: vec4<u32>,
    scale: f32,
}

fn chunk(row: u32, i: u32) -> Chunk {
    return Chunk(w[row * (p.K >> 4u) + i], scale_of(row, i >> 1u));
}

fn chunk4(c: Chunk, j: u32) -> vec4<f32> {
    return c.scale * signed_bytes(c.q[j]);
}
