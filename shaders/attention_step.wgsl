// Attention of one token over its rows of kv, as attention.wgsl, after its own keys and values were stored: store_rows.wgsl and attention.wgsl in one.
// One workgroup a head, which alone looks at that head's columns of kv.
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
@group(0) @binding(3) var<storage, read_write> kv: array<vec4<f32>>; // (rows,KVStride)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (Heads·Dh)

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import rows
//#import attention_out
//#import attention_own
//#import attention_chunks

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n < p.Heads) {
        if (lane < p.Dh / 4u) {
            store_own(n, lane);
        }
        storageBarrier();
        attend(n, lane);
    }
}
