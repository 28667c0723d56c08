// One vec4<u32> of a weight row: 32 values, one block.
const CHUNK: u32 = 8u; // vec4s of values in it

struct Chunk {
    q: vec4<u32>,
    scale_minimum: vec2<f32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    return Chunk(w[row * (p.K >> 5u) + i], scale_minimum(row, i));
}

fn chunk4(c: Chunk, j: u32) -> vec4<f32> {
    return c.scale_minimum.x * four_codes(c.q[j >> 1u] >> ((j & 1u) << 4u)) + c.scale_minimum.y;
}
