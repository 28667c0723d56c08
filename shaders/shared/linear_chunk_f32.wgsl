// One vec4<u32> of a weight row: 4 values.
const CHUNK: u32 = 1u;

struct Chunk {
    v: vec4<f32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    return Chunk(weight4(row, i));
}

fn dot_chunk(c: Chunk, at: u32) -> f32 {
    return dot(c.v, x[at]);
}
