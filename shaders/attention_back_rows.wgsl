// The gradient of attention.wgsl for the keys and values of the tokens' own rows. The own row of token r is the last that it attends to,
// j = first + count − 1, and those who attend to it are r and the tokens after it with the same first. Over them, with p = exp(Scale · q_i·k_j −
// stats_i.x): dv = Σ_i p·dy_i and dk = Scale · Σ_i p·(dy_i·v_j − stats_i.y)·q_i; zeros where count is 0. One workgroup a token and head, tokens in
// chunks of WG.
struct Params {
    T: u32,         // tokens
    Heads: u32,
    Dh: u32,        // columns of a head, at most 256
    QStride: u32,   // values in a row of q
    KVStride: u32,  // values in a row of kv
    KOffset: u32,   // column of the first head's keys
    VOffset: u32,   // column of the first head's values
    Scale: f32,     // as in attention.wgsl
    DStride: u32,   // values in a row of dqkv
    DKOffset: u32,  // column of dqkv where the first head's keys begin
    DVOffset: u32,  // column of dqkv where the first head's values begin
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>; // (T,Heads·Dh)
@group(0) @binding(5) var<storage, read> stats: array<f32>; // (T,Heads,2), by attention_back_query
@group(0) @binding(6) var<storage, read_write> dqkv: array<f32>; // (T,DStride); only columns of keys and values are written

const WG: u32 = 64u;
const QUADS: u32 = 64u;

//#import grid
//#import four
//#import rows
//#import upstream
//#import attention_back_out

var<workgroup> keys: array<vec4<f32>, QUADS>;
var<workgroup> values: array<vec4<f32>, QUADS>;
var<workgroup> weights: array<vec2<f32>, WG>; // of dy in dv, of q in dk
var<workgroup> key_sums: array<vec4<f32>, WG>;
var<workgroup> value_sums: array<vec4<f32>, WG>;

// Whether token i belongs to the sequence whose rows begin at first.
fn of_sequence(i: u32, first: u32) -> bool {
    return i < p.T && tokens[4u * i + 2u] == first;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= p.T * p.Heads) {
        return;
    }
    let r = n / p.Heads;
    let h = n % p.Heads;
    let quads = (p.Dh + 3u) >> 2u;
    let to = r * p.DStride + h * p.Dh;
    let first = tokens[4u * r + 2u];
    let count = tokens[4u * r + 3u];
    if (count == 0u) {
        if (lane < quads) {
            store4(to + p.DKOffset, lane, vec4<f32>());
            store4(to + p.DVOffset, lane, vec4<f32>());
        }
        return;
    }
    if (lane < quads) {
        keys[lane] = p.Scale * key4(first + count - 1u, h, lane);
        values[lane] = value4(first + count - 1u, h, lane);
    }
    workgroupBarrier();
    let slices = WG / quads;
    let slice = lane / quads;
    let column = lane % quads;

    var dk = vec4<f32>();
    var dv = vec4<f32>();
    for (var start = r; of_sequence(start, first); start += WG) {
        let i = start + lane;
        if (of_sequence(i, first)) {
            var score = 0.0;
            var product = 0.0;
            for (var c = 0u; c < quads; c++) {
                score += dot(keys[c], query4(i, h, c));
                product += dot(values[c], upstream4(i, h, c));
            }
            let at = 2u * (i * p.Heads + h);
            let weight = exp(score - stats[at]);
            weights[lane] = vec2<f32>(weight, p.Scale * weight * (product - stats[at + 1u]));
        }
        workgroupBarrier();
        if (slice < slices) {
            for (var m = slice; m < WG && of_sequence(start + m, first); m += slices) {
                dv += weights[m].x * upstream4(start + m, h, column);
                dk += weights[m].y * query4(start + m, h, column);
            }
        }
        workgroupBarrier();
    }
    key_sums[lane] = dk;
    value_sums[lane] = dv;
    workgroupBarrier();
    if (lane < quads) {
        for (var s = 1u; s < slices; s++) {
            dk += key_sums[s * quads + lane];
            dv += value_sums[s * quads + lane];
        }
        store4(to + p.DKOffset, lane, dk);
        store4(to + p.DVOffset, lane, dv);
    }
}
