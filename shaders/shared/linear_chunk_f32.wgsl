// One vec4<u32> of a weight row: 4 values.
const CHUNK: u32 = 1u; // vec4s of values in it

struct Chunk {
    q: vec4<u32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    return Chunk(w[row * (p.K >> 2u) + i]);
}

fn chunk4(c: Chunk, j: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(c.q);
}
