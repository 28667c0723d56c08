// One vec4<u32> of a weight row: 32 values, one block.
const CHUNK: u32 = 8u;

struct Chunk {
    v0: vec4<f32>,
    v1: vec4<f32>,
    v2: vec4<f32>,
    v3: vec4<f32>,
    v4: vec4<f32>,
    v5: vec4<f32>,
    v6: vec4<f32>,
    v7: vec4<f32>,
}

fn chunk(row: u32, i: u32) -> Chunk {
    let q = w[row * (p.K >> 5u) + i];
    let h = q >> vec4<u32>(16u);
    let sm = scale_minimum(row, i);
    return Chunk(
        sm.x * four_codes(q.x) + sm.y, sm.x * four_codes(h.x) + sm.y, sm.x * four_codes(q.y) + sm.y, sm.x * four_codes(h.y) + sm.y,
        sm.x * four_codes(q.z) + sm.y, sm.x * four_codes(h.z) + sm.y, sm.x * four_codes(q.w) + sm.y, sm.x * four_codes(h.w) + sm.y);
}

fn dot_chunk(c: Chunk, at: u32) -> f32 {
    return dot(c.v0, x[at]) + dot(c.v1, x[at + 1u]) + dot(c.v2, x[at + 2u]) + dot(c.v3, x[at + 3u])
        + dot(c.v4, x[at + 4u]) + dot(c.v5, x[at + 5u]) + dot(c.v6, x[at + 6u]) + dot(c.v7, x[at + 7u]);
}
