// The gradient of attention.wgsl for the queries, and what attention_back_rows needs of every token and head: with scores z_j = Scale · q·k_j and
// weights p = softmax(z), stats = (log Σ_j exp z_j, Σ_j p_j·(dy·v_j)) and dq = Scale · Σ_j p_j·(dy·v_j − stats.y)·k_j; zeros where count is 0.
// One workgroup a token and head; rows come in chunks of WG and the softmax is online, as in attention.wgsl.
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
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>; // (T,Heads·Dh)
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // (T,Heads,2)
@group(0) @binding(6) var<storage, read_write> dqkv: array<f32>; // (T,DStride); head h of dq at column h·Dh

const WG: u32 = 64u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import four
//#import rows
//#import upstream
//#import attention_back_out

var<workgroup> query: array<vec4<f32>, QUADS>;
var<workgroup> upstream: array<vec4<f32>, QUADS>;
var<workgroup> weights: array<vec2<f32>, WG>; // without and with dy·v
var<workgroup> sums: array<vec4<f32>, WG>;
var<workgroup> tilted_sums: array<vec4<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= p.T * p.Heads) {
        return;
    }
    let t = n / p.Heads;
    let h = n % p.Heads;
    let quads = (p.Dh + 3u) >> 2u;
    if (lane < quads) {
        query[lane] = p.Scale * query4(t, h, lane);
        upstream[lane] = upstream4(t, h, lane);
    }
    let first = tokens[4u * t + 2u];
    let count = tokens[4u * t + 3u];
    workgroupBarrier();
    let slices = WG / quads;
    let slice = lane / quads;
    let column = lane % quads;

    var largest = LOWEST;
    var sum = 0.0;
    var tilted_sum = 0.0;
    var acc = vec4<f32>(); // Σ weight·k
    var tilted = vec4<f32>(); // Σ weight·(dy·v)·k
    for (var start = 0u; start < count; start += WG) {
        let j = start + lane;
        var score = LOWEST;
        var product = 0.0;
        if (j < count) {
            score = 0.0;
            for (var c = 0u; c < quads; c++) {
                score += dot(query[c], key4(first + j, h, c));
                product += dot(upstream[c], value4(first + j, h, c));
            }
        }
        let before = largest;
        largest = max(before, max_over_group(score, lane));
        let keep = exp(before - largest);
        let weight = exp(score - largest);
        weights[lane] = vec2<f32>(weight, weight * product);
        workgroupBarrier();
        sum = sum * keep + weight;
        tilted_sum = tilted_sum * keep + weight * product;
        acc *= keep;
        tilted *= keep;
        if (slice < slices) {
            let rest = min(WG, count - start);
            for (var i = slice; i < rest; i += slices) {
                let k = key4(first + start + i, h, column);
                acc += weights[i].x * k;
                tilted += weights[i].y * k;
            }
        }
    }
    sums[lane] = acc;
    tilted_sums[lane] = tilted;
    sum = sum_over_group(sum, lane);
    tilted_sum = sum_over_group(tilted_sum, lane);
    let none = count == 0u;
    let mean = select(tilted_sum / sum, 0.0, none);
    if (lane < quads) {
        for (var s = 1u; s < slices; s++) {
            acc += sums[s * quads + lane];
            tilted += tilted_sums[s * quads + lane];
        }
        store4(t * p.DStride + h * p.Dh, lane, select(p.Scale / sum * (tilted - mean * acc), vec4<f32>(), none));
    }
    if (lane == 0u) {
        stats[2u * n] = select(largest + log(sum), 0.0, none);
        stats[2u * n + 1u] = mean;
    }
}
