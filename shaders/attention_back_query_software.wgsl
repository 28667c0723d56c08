//#kernel attention_back_query
// The gradient of attention.wgsl for the queries, as attention_back_query.wgsl says, for adapters on a CPU, where workgroup memory and barriers are
// slow: one invocation a token and head, four rows of kv at a time, first for the statistics and then again for dq, whose sums are in dqkv itself.
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

const WG: u32 = 8u;

const LOWEST = -3.0e38;

//#import grid
//#import four
//#import rows
//#import upstream
//#import attention_back_out

// Scale · q·k and dy·v of four rows from r on; those beyond last stand for it.
struct Four {
    scores: vec4<f32>,
    products: vec4<f32>,
}

fn four(t: u32, h: u32, r: u32, last: u32) -> Four {
    let quads = (p.Dh + 3u) >> 2u;
    let r1 = min(r + 1u, last);
    let r2 = min(r + 2u, last);
    let r3 = min(r + 3u, last);
    var scores = vec4<f32>();
    var products = vec4<f32>();
    for (var c = 0u; c < quads; c++) {
        let q4 = query4(t, h, c);
        let d4 = upstream4(t, h, c);
        scores += vec4<f32>(dot(q4, key4(r, h, c)), dot(q4, key4(r1, h, c)), dot(q4, key4(r2, h, c)), dot(q4, key4(r3, h, c)));
        products += vec4<f32>(dot(d4, value4(r, h, c)), dot(d4, value4(r1, h, c)), dot(d4, value4(r2, h, c)), dot(d4, value4(r3, h, c)));
    }
    let number = vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u);
    return Four(select(vec4<f32>(LOWEST), p.Scale * scores, number <= vec4<u32>(last)), products);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n >= p.T * p.Heads) {
        return;
    }
    let t = n / p.Heads;
    let h = n % p.Heads;
    let quads = (p.Dh + 3u) >> 2u;
    let first = tokens[4u * t + 2u];
    let count = tokens[4u * t + 3u];
    let to = t * p.DStride + h * p.Dh;
    for (var c = 0u; c < quads; c++) {
        store4(to, c, vec4<f32>());
    }
    stats[2u * n] = 0.0;
    stats[2u * n + 1u] = 0.0;
    if (count == 0u) {
        return;
    }
    let last = first + count - 1u;
    var largest = LOWEST;
    var sum = 0.0;
    var mean = 0.0;
    for (var r = first; r <= last; r += 4u) {
        let rows = four(t, h, r, last);
        let before = largest;
        largest = max(before, max(max(rows.scores.x, rows.scores.y), max(rows.scores.z, rows.scores.w)));
        let keep = exp(before - largest);
        let weights = exp(rows.scores - largest);
        sum = sum * keep + dot(weights, vec4<f32>(1.0));
        mean = mean * keep + dot(weights, rows.products);
    }
    mean /= sum;
    let log_sum = largest + log(sum);
    stats[2u * n] = log_sum;
    stats[2u * n + 1u] = mean;
    for (var r = first; r <= last; r += 4u) {
        let rows = four(t, h, r, last);
        let slopes = p.Scale * exp(rows.scores - log_sum) * (rows.products - mean);
        let r1 = min(r + 1u, last);
        let r2 = min(r + 2u, last);
        let r3 = min(r + 3u, last);
        for (var c = 0u; c < quads; c++) {
            let sums = slopes.x * key4(r, h, c) + slopes.y * key4(r1, h, c) + slopes.z * key4(r2, h, c) + slopes.w * key4(r3, h, c);
            store4(to, c, result4(to, c) + sums);
        }
    }
}
