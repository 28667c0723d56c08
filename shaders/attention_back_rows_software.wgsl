//#kernel attention_back_rows
// The gradient of attention.wgsl for the keys and values of the tokens' own rows, as attention_back_rows.wgsl says, for adapters on a CPU, where
// workgroup memory and barriers are slow: one invocation a token and head, four of those who attend at a time, sums in dqkv itself.
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

const WG: u32 = 8u;

//#import grid
//#import four
//#import rows
//#import upstream
//#import attention_back_out

// Whether token i belongs to the sequence whose rows begin at first.
fn of_sequence(i: u32, first: u32) -> bool {
    return i < p.T && tokens[4u * i + 2u] == first;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n >= p.T * p.Heads) {
        return;
    }
    let r = n / p.Heads;
    let h = n % p.Heads;
    let quads = (p.Dh + 3u) >> 2u;
    let to_key = r * p.DStride + h * p.Dh + p.DKOffset;
    let to_value = r * p.DStride + h * p.Dh + p.DVOffset;
    for (var c = 0u; c < quads; c++) {
        store4(to_key, c, vec4<f32>());
        store4(to_value, c, vec4<f32>());
    }
    let first = tokens[4u * r + 2u];
    let count = tokens[4u * r + 3u];
    if (count == 0u) {
        return;
    }
    let row = first + count - 1u;
    for (var i = r; of_sequence(i, first); i += 4u) {
        // Tokens of another sequence have no weight; those beyond the last stand for it.
        let ok = vec4<bool>(true, of_sequence(i + 1u, first), of_sequence(i + 2u, first), of_sequence(i + 3u, first));
        let i1 = min(i + 1u, p.T - 1u);
        let i2 = min(i + 2u, p.T - 1u);
        let i3 = min(i + 3u, p.T - 1u);
        var scores = vec4<f32>();
        var products = vec4<f32>();
        for (var c = 0u; c < quads; c++) {
            let k4 = key4(row, h, c);
            let v4 = value4(row, h, c);
            scores += vec4<f32>(dot(k4, query4(i, h, c)), dot(k4, query4(i1, h, c)), dot(k4, query4(i2, h, c)), dot(k4, query4(i3, h, c)));
            products += vec4<f32>(dot(v4, upstream4(i, h, c)), dot(v4, upstream4(i1, h, c)), dot(v4, upstream4(i2, h, c)), dot(v4, upstream4(i3, h, c)));
        }
        let at = 2u * (vec4<u32>(i, i1, i2, i3) * p.Heads + h);
        let log_sums = vec4<f32>(stats[at.x], stats[at.y], stats[at.z], stats[at.w]);
        let means = vec4<f32>(stats[at.x + 1u], stats[at.y + 1u], stats[at.z + 1u], stats[at.w + 1u]);
        let weights = select(vec4<f32>(), exp(p.Scale * scores - log_sums), ok);
        let slopes = select(vec4<f32>(), p.Scale * weights * (products - means), ok);
        for (var c = 0u; c < quads; c++) {
            let dk = slopes.x * query4(i, h, c) + slopes.y * query4(i1, h, c) + slopes.z * query4(i2, h, c) + slopes.w * query4(i3, h, c);
            let dv = weights.x * upstream4(i, h, c) + weights.y * upstream4(i1, h, c) + weights.z * upstream4(i2, h, c) + weights.w * upstream4(i3, h, c);
            store4(to_key, c, result4(to_key, c) + dk);
            store4(to_value, c, result4(to_value, c) + dv);
        }
    }
}
