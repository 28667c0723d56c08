// Attention of one token in parts, so that a long context occupies a GPU of many cores: a head's rows of kv are cut into Splits parts, each by a
// workgroup, which leaves sums that attention_merge.wgsl puts together. As in attention_step.wgsl, the token's own keys and values are stored before.
struct Params {
    Heads: u32,
    Dh: u32,        // columns of a head, at most 256
    QStride: u32,   // values in q
    Source: u32,    // column of q that is column 0 of the token's row of kv
    KVStride: u32,  // values in a row of kv
    KOffset: u32,   // column of the first head's keys
    VOffset: u32,   // column of the first head's values
    Splits: u32,    // parts of a head's rows
    Scale: f32,     // 1/√Dh as a rule
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // the token's queries, keys and values; queries of head h at column h·Dh
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // (1,4)
@group(0) @binding(3) var<storage, read_write> kv: array<vec4<f32>>; // (rows,KVStride)
@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>; // (Heads,Splits,Dh+4): Σ weight·value; the largest score, Σ weight and two zeros

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import rows
//#import attention_own
//#import attention_chunks

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= p.Heads * p.Splits) {
        return;
    }
    let h = n / p.Splits;
    let split = n % p.Splits;
    let count = count_of(0u);
    let each = (count + p.Splits - 1u) / p.Splits;
    let start = min(split * each, count);
    let end = min(start + each, count);
    // The part that reads the token's own row writes it; the first, where none does.
    let quads = p.Dh / 4u;
    let own = tokens[1];
    if (lane < quads && ((own >= start && own < end) || (own >= count && split == 0u))) {
        store_own(h, lane);
    }
    storageBarrier();
    let a = attended(0u, h, tokens[2] + start, end - start, lane);
    let at = n * (quads + 1u);
    if (lane < quads) {
        parts[at + lane] = a.values;
    }
    if (lane == 0u) {
        parts[at + quads] = vec4<f32>(a.largest, a.weight, 0.0, 0.0);
    }
}
