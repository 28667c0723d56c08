struct Params {
    Heads: u32,
    Dh: u32,        // columns of a head, at most 256
    QStride: u32,   // values in q
    Source: u32,    // column of q that is column 0 of the token's row of kv
    KVStride: u32,  // values in a row of kv
    KOffset: u32,   // column of the first head's keys
    VOffset: u32,   // column of the first head's values
    Scale: f32,     // 1/√Dh as a rule
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // the token's queries, keys and values; queries of head h at column h·Dh
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // (1,4)
@group(0) @binding(3) var<storage, read_write> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (Heads·Dh)
