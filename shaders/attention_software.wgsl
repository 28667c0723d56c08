//#kernel attention
// Attention for adapters on a CPU, where workgroup memory and barriers are slow: one invocation a token and head. Neighbouring invocations are heads of one token, which have equally many rows.
// Lavapipe ends an invocation's loops after 65535 rounds in all: there count may be 15000 at Dh 64, 8000 at 128, 4000 at 256.
//#import attention_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T,Heads·Dh)

const WG: u32 = 8u;

const LOWEST = -3.0e38;

//#import grid
//#import four
//#import rows
//#import attention_out
//#import attention_alone
//#import attention_lone

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n < p.T * p.Heads) {
        attend(n);
    }
}
