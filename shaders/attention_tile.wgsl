//#kernel attention
// Attention for GPUs, where neighbouring tokens that attend from the same row on, as in one sequence, share what is read: up to TOKENS of them and one
// head are a workgroup, which brings ROWS rows of keys at a time into its memory. The softmax is online, as in attention_chunks. There is a workgroup for
// each token and head; that of the first token of such a run does the work, the others have none.
//#import attention_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (T,Heads·Dh)

const WG: u32 = 128u;
const QUADS: u32 = 64u;
const TOKENS: u32 = 16u; // tokens of a tile
const PARTS: u32 = 8u; // lanes of a token: WG / TOKENS
const ROWS: u32 = 32u; // rows at a time: four scores a lane
const COLUMNS: u32 = 16u; // vec4s of a key at a time
const LINE: u32 = 17u; // of them in memory: an odd number keeps lanes in different banks
const HELD: u32 = 4u; // vec4s of its token's result that a lane sums up: 1, 2 or 4

const LOWEST = -3.0e38;

var<workgroup> keys: array<vec4<f32>, 544>; // (ROWS,LINE)
var<workgroup> scores: array<vec4<f32>, 144>; // (TOKENS,PARTS+1)

//#import grid
//#import reduce
//#import four
//#import rows
//#import attention_out
//#import attention_chunks
//#import attention_whole

// What four rows of values add to four columns.
fn mixed(weight: vec4<f32>, r0: u32, r1: u32, r2: u32, r3: u32, h: u32, c: u32) -> vec4<f32> {
    return weight.x * value4(r0, h, c) + weight.y * value4(r1, h, c) + weight.z * value4(r2, h, c) + weight.w * value4(r3, h, c);
}

// Tokens t0 to t0+length−1 and head h. Lane part of a token has rows part, part+8, part+16 and part+24 of those at hand.
fn attend_tile(t0: u32, length: u32, h: u32, lane: u32) {
    let token = lane / PARTS;
    let part = lane % PARTS;
    let t = t0 + min(token, length - 1u);
    let first = tokens[4u * t0 + 2u];
    var rows = 0u;
    for (var i = 0u; i < length; i++) {
        rows = max(rows, count_of(t0 + i));
    }
    let mine = select(0u, count_of(t), token < length);
    let quads = p.Dh >> 2u;
    let c0 = min(part, quads - 1u);
    let c1 = min(part + PARTS, quads - 1u);
    let c2 = min(part + 2u * PARTS, quads - 1u);
    let c3 = min(part + 3u * PARTS, quads - 1u);
    var acc0 = vec4<f32>();
    var acc1 = vec4<f32>();
    var acc2 = vec4<f32>();
    var acc3 = vec4<f32>();
    var largest = LOWEST;
    var sum = 0.0;
    for (var start = 0u; start < rows; start += ROWS) {
        let last = rows - 1u - start;
        var s = vec4<f32>();
        for (var column = 0u; column < quads; column += COLUMNS) {
            if (column > 0u) {
                workgroupBarrier();
            }
            for (var i = lane; i < ROWS * COLUMNS; i += WG) {
                let row = i / COLUMNS;
                let c = i % COLUMNS;
                if (column + c < quads) {
                    keys[row * LINE + c] = key4(first + start + min(row, last), h, column + c);
                }
            }
            workgroupBarrier();
            for (var c = 0u; c < min(COLUMNS, quads - column); c++) {
                let q4 = query4(t, h, column + c);
                let at = part * LINE + c;
                s += vec4<f32>(dot(q4, keys[at]), dot(q4, keys[at + 8u * LINE]), dot(q4, keys[at + 16u * LINE]), dot(q4, keys[at + 24u * LINE]));
            }
        }
        s = select(vec4<f32>(LOWEST), p.Scale * s, vec4<u32>(start + part) + vec4<u32>(0u, 8u, 16u, 24u) < vec4<u32>(mine));
        reduced[lane] = max(max(s.x, s.y), max(s.z, s.w));
        workgroupBarrier();
        let before = largest;
        for (var i = 0u; i < PARTS; i++) {
            largest = max(largest, reduced[token * PARTS + i]);
        }
        let keep = exp(before - largest);
        let weight = exp(s - largest);
        scores[token * (PARTS + 1u) + part] = weight;
        sum = sum * keep + dot(weight, vec4<f32>(1.0));
        workgroupBarrier();
        acc0 *= keep;
        acc1 *= keep;
        acc2 *= keep;
        acc3 *= keep;
        for (var i = 0u; i < PARTS; i++) {
            let w = scores[token * (PARTS + 1u) + i];
            let r0 = first + start + min(i, last);
            let r1 = first + start + min(i + 8u, last);
            let r2 = first + start + min(i + 16u, last);
            let r3 = first + start + min(i + 24u, last);
            acc0 += mixed(w, r0, r1, r2, r3, h, c0);
            if (HELD > 1u) {
                acc1 += mixed(w, r0, r1, r2, r3, h, c1);
            }
            if (HELD > 2u) {
                acc2 += mixed(w, r0, r1, r2, r3, h, c2);
                acc3 += mixed(w, r0, r1, r2, r3, h, c3);
            }
        }
    }
    reduced[lane] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < PARTS; i++) {
        sum += reduced[token * PARTS + i];
    }
    let factor = select(1.0 / sum, 0.0, mine == 0u);
    if (token < length) {
        if (part < quads) {
            store4(t * p.Heads + h, part, factor * acc0);
        }
        if (part + PARTS < quads) {
            store4(t * p.Heads + h, part + PARTS, factor * acc1);
        }
        if (part + 2u * PARTS < quads) {
            store4(t * p.Heads + h, part + 2u * PARTS, factor * acc2);
        }
        if (part + 3u * PARTS < quads) {
            store4(t * p.Heads + h, part + 3u * PARTS, factor * acc3);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= p.T * p.Heads) {
        return;
    }
    let t = n / p.Heads;
    let first = tokens[4u * t + 2u];
    let end = min(p.T, t / TOKENS * TOKENS + TOKENS);
    if (t % TOKENS > 0u) {
        if (tokens[4u * t - 2u] == first) {
            return;
        }
    }
    var length = 1u;
    for (var i = t + 1u; i < end; i++) {
        if (tokens[4u * i + 2u] != first) {
            break;
        }
        length++;
    }
    if (length == 1u) {
        attend(n, lane);
    } else {
        attend_tile(t, length, n % p.Heads, lane);
    }
}
