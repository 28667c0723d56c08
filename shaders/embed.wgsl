// Rows of a table picked by the numbers in one column of the token table:
// y[t] = table[tokens[t, Column] + Offset − First] (+ x[t] where Add is 1), for the tokens whose number lies in this shard of the table.
// Other rows of y stay as they are, so that one dispatch a shard fills y whole.
struct Params {
    T: u32,       // tokens
    K: u32,       // values in a row of the table, and of x and y
    Rows: u32,    // rows of this shard
    First: u32,   // number of the shard's first row
    Offset: u32,  // added to every number before it is looked up (OPT's positions: 2)
    Column: u32,  // column of the token table, of 4
    Add: u32,     // 1: add x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>; // (Rows,K) in the table's format
@group(0) @binding(3) var<storage, read> s: array<u32>; // its scales
@group(0) @binding(4) var<storage, read> x: array<f32>; // (T,K)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (T,K)

const WG: u32 = 64u;

//#import weight
//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let t = i / p.K;
    if (t >= p.T) {
        return;
    }
    let k = i % p.K;
    let row = tokens[4u * t + p.Column] + p.Offset - p.First;
    if (row >= p.Rows) {
        return;
    }
    var v = weight1(row, k);
    if (p.Add == 1u) {
        v += x[i];
    }
    y[i] = v;
}
