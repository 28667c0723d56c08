// Appends the most likely token to `control` and makes it row 0 of the token table. Among equals the lowest number wins, NaN never does.
struct Params {
    V: u32,   // logits
    Row: u32, // the row of the token table that the logits belong to
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>; // (V) f32 bits
@group(0) @binding(2) var<storage, read_write> control: array<u32>; // tokens taken, tokens before [RET] may be, [RET] or 0xffffffff, factor on its logit; the tokens
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>; // (T,4): row 0 becomes the next token, after that of Row
@group(0) @binding(4) var<storage, read_write> rows: array<u32>; // rows[0] becomes 0

const WG: u32 = 256u;

//#import best
//#import reduce_best

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    let count = control[0];
    let early = count < control[1];
    let ret = control[2];
    let factor = bitcast<f32>(control[3]);
    var mine = NOTHING;
    for (var i = lane; i < p.V; i += WG) {
        var bits = logits[i];
        if (i == ret) {
            bits = bitcast<u32>(bitcast<f32>(bits) * factor);
        }
        let here = Best(order_key(bits), i);
        if (here.key != NOTHING.key && !(early && i == ret) && better(here, mine)) {
            mine = here;
        }
    }
    let best = best_over_group(mine, lane);
    if (lane == 0u) {
        let id = select(best.row, 0u, best.key == NOTHING.key);
        control[0] = count + 1u;
        if (count < arrayLength(&control) - 4u) {
            control[4u + count] = id;
        }
        let old = 4u * p.Row;
        let position = tokens[old + 1u] + 1u;
        let first = tokens[old + 2u];
        let attended = tokens[old + 3u] + 1u;
        tokens[0] = id;
        tokens[1] = position;
        tokens[2] = first;
        tokens[3] = attended;
        rows[0] = 0u;
    }
}
