// y[t,h] = Σ_j softmax_j(Scale · q[t,h]·k[j,h]) · v[j,h] over the count rows of kv from first on, as the token table says; zeros where count is 0.
// One workgroup a token and head. Rows come in chunks of WG: each lane scores one row, then each lane sums four columns over one slice of the
// chunk. The softmax is online (Milakov & Gimelshein 2018), so that memory does not depend on count.
struct Params {
    T: u32,         // tokens
    Heads: u32,
    Dh: u32,        // columns of a head, at most 256
    QStride: u32,   // values in a row of q
    KVStride: u32,  // values in a row of kv
    KOffset: u32,   // column of the first head's keys
    VOffset: u32,   // column of the first head's values
    Scale: f32,     // 1/√Dh as a rule
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T,Heads·Dh)

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import rows
//#import attention_out

var<workgroup> query: array<vec4<f32>, QUADS>;
var<workgroup> weights: array<f32, WG>;
var<workgroup> sums: array<vec4<f32>, WG>;

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
    }
    let first = tokens[4u * t + 2u];
    // No more than there can be, so that a wild table costs no more time than a good one.
    let count = min(tokens[4u * t + 3u], arrayLength(&kv) * 4u / p.KVStride + 1u);
    workgroupBarrier();
    let slices = WG / quads;
    let slice = lane / quads;
    let column = lane % quads;

    var largest = LOWEST;
    var sum = 0.0;
    var acc = vec4<f32>();
    for (var start = 0u; start < count; start += WG) {
        let j = start + lane;
        var score = LOWEST;
        if (j < count) {
            score = 0.0;
            for (var c = 0u; c < quads; c++) {
                score += dot(query[c], key4(first + j, h, c));
            }
        }
        let before = largest;
        largest = max(before, max_over_group(score, lane));
        let keep = exp(before - largest);
        let weight = exp(score - largest);
        weights[lane] = weight;
        workgroupBarrier();
        sum = sum * keep + weight;
        acc *= keep;
        if (slice < slices) {
            let rest = min(WG, count - start);
            for (var i = slice; i < rest; i += slices) {
                acc += weights[i] * value4(first + start + i, h, column);
            }
        }
    }
    sums[lane] = acc;
    sum = sum_over_group(sum, lane);
    if (lane < quads) {
        for (var s = 1u; s < slices; s++) {
            acc += sums[s * quads + lane];
        }
        store4(t, h, lane, select(acc / sum, vec4<f32>(), count == 0u));
    }
}
