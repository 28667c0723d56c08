// y[t,h] = Σ_j softmax_j(Scale · q[t,h]·k[j,h]) · v[j,h] over the count rows of kv from first on, as the token table says; zeros where count is 0.
// One workgroup a token and head.
//#import attention_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T,Heads·Dh)

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import four
//#import rows
//#import attention_out
//#import attention_chunks
//#import attention_whole

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n < p.T * p.Heads) {
        attend(n, lane);
    }
}
