// One vec4<u32> of a weight row: 8 values.
const CHUNK: u32 = 2u;

struct Chunk {
    v0: vec4<f32>,
    v1: vec4<f32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    let q = w[row * (p.K >> 3u) + i];
    return Chunk(vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)), vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)));
}

fn dot_chunk(c: Chunk, at: u32) -> f32 {
    return dot(c.v0, x[at]) + dot(c.v1, x[at + 1u]);
}
