// dtable[row] += Σ_t dx[t] over the tokens whose number is First + row: the gradient of some rows of an embedding table. A workgroup sums
// COLUMNS columns of one row, in strips of tokens that lie next to each other.
struct Params {
    T: u32,       // tokens
    K: u32,       // values in a row of the table
    Rows: u32,    // rows of dtable
    First: u32,   // number of its first row
    Column: u32,  // column of the token table, of 4
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(2) var<storage, read> dx: array<f32>; // (T,K)
@group(0) @binding(3) var<storage, read_write> dtable: array<f32>; // (Rows,K)

const WG: u32 = 256u;
const COLUMNS: u32 = 32u;

//#import grid

var<workgroup> sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let across = (p.K + COLUMNS - 1u) / COLUMNS;
    let row = group_number(group) / across;
    if (row >= p.Rows) {
        return;
    }
    let k = group_number(group) % across * COLUMNS + lane % COLUMNS;
    let strips = WG / COLUMNS;
    let strip = lane / COLUMNS;
    let length = (p.T + strips - 1u) / strips;
    var sum = 0.0;
    if (k < p.K) {
        for (var t = strip * length; t < min(p.T, (strip + 1u) * length); t++) {
            if (tokens[4u * t + p.Column] == p.First + row) {
                sum += dx[t * p.K + k];
            }
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (strip > 0u || k >= p.K) {
        return;
    }
    for (var i = lane + COLUMNS; i < WG; i += COLUMNS) {
        sum += sums[i];
    }
    dtable[row * p.K + k] += sum;
}
