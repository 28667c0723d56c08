// One vec4<u32> of a weight row: 8 values.
const CHUNK: u32 = 2u; // vec4s of values in it

struct Chunk {
    q: vec4<u32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    return Chunk(w[row * (p.K >> 3u) + i]);
}

fn chunk4(c: Chunk, j: u32) -> vec4<f32> {
    let q = select(c.q.xy, c.q.zw, j == 1u);
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}
