// The gradient of Weight times the contrastive loss for the embeddings of one side:
// dx[i] = exp(scale[0]) · Σ_j g_ij · other[j] with g_ij = Weight/(2·B) · (softmax over row i + softmax over column j − 2·[i = j]) at logit ij.
// Where Transposed is 1, i counts columns and j rows. Where it is 0, dscale[i] = Σ_j g_ij · logits[i,j] as well. A workgroup makes ROWS rows
// and 4·WG columns of dx.
struct Params {
    B: u32,           // rows and columns of logits
    S: u32,           // values in an embedding
    Transposed: u32,  // 0: dx belongs to the rows of logits; 1: to the columns
    Weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (B,B)
@group(0) @binding(2) var<storage, read> stats: array<f32>; // (2·B,4), as contrast makes them
@group(0) @binding(3) var<storage, read> other: array<f32>; // (B,S): embeddings of the other side
@group(0) @binding(4) var<storage, read> scale: array<f32>; // (1)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (B,S)
@group(0) @binding(6) var<storage, read_write> dscale: array<f32>; // (B), or anything where Transposed is 1

const WG: u32 = 64u;
const ROWS: u32 = 4u;

//#import grid

// One j a lane: g of the workgroup's ROWS rows.
var<workgroup> tile: array<vec4<f32>, WG>;

fn logit(i: u32, j: u32) -> f32 {
    return logits[select(i * p.B + j, j * p.B + i, p.Transposed == 1u)];
}

fn store4(i: u32, s: u32, v: vec4<f32>) {
    if (s >= p.S) {
        return;
    }
    let at = i * p.S + s;
    dx[at] = v.x;
    if (i + 1u < p.B) {
        dx[at + p.S] = v.y;
    }
    if (i + 2u < p.B) {
        dx[at + 2u * p.S] = v.z;
    }
    if (i + 3u < p.B) {
        dx[at + 3u * p.S] = v.w;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let across = (p.S + 4u * WG - 1u) / (4u * WG);
    let first = group_number(group) / across * ROWS;
    if (first >= p.B) {
        return;
    }
    let part = group_number(group) % across;
    // Rows and columns beyond the last are the last again, and are not stored.
    let rows = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.B - 1u));
    let s = part * 4u * WG + lane;
    let columns = min(vec4<u32>(s) + WG * vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.S - 1u));
    let mine = 4u * p.Transposed * p.B;
    let theirs = 4u * (1u - p.Transposed) * p.B;
    let lse = vec4<f32>(stats[mine + 4u * rows.x], stats[mine + 4u * rows.y], stats[mine + 4u * rows.z], stats[mine + 4u * rows.w]);
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    var products = vec4<f32>();
    for (var start = 0u; start < p.B; start += WG) {
        let j = start + lane;
        var g = vec4<f32>();
        if (j < p.B) {
            let l = vec4<f32>(logit(rows.x, j), logit(rows.y, j), logit(rows.z, j), logit(rows.w, j));
            let pair = select(vec4<f32>(), vec4<f32>(1.0), rows == vec4<u32>(j));
            g = 0.5 * p.Weight / f32(p.B) * ((exp(l - lse) - pair) + (exp(l - stats[theirs + 4u * j]) - pair));
            products += g * l;
        }
        tile[lane] = g;
        workgroupBarrier();
        for (var n = 0u; n < min(WG, p.B - start); n++) {
            let at = (start + n) * p.S;
            let w = tile[n];
            sum0 += w * other[at + columns.x];
            sum1 += w * other[at + columns.y];
            sum2 += w * other[at + columns.z];
            sum3 += w * other[at + columns.w];
        }
        workgroupBarrier();
    }
    let factor = exp(scale[0]);
    store4(first, s, factor * sum0);
    store4(first, s + WG, factor * sum1);
    store4(first, s + 2u * WG, factor * sum2);
    store4(first, s + 3u * WG, factor * sum3);

    tile[lane] = products;
    workgroupBarrier();
    if (p.Transposed == 1u || part > 0u || lane > 0u) {
        return;
    }
    for (var n = 1u; n < WG; n++) {
        products += tile[n];
    }
    dscale[rows.x] = products.x;
    if (first + 1u < p.B) {
        dscale[rows.y] = products.y;
    }
    if (first + 2u < p.B) {
        dscale[rows.z] = products.z;
    }
    if (first + 3u < p.B) {
        dscale[rows.w] = products.w;
    }
}
