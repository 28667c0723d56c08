// Takes the most likely next token and puts it into the token table, so that the same dispatches compute the one after it: greedy decoding without the
// host. The logit of [RET] is multiplied by a factor, or left out for the first tokens; among equals the lowest number wins, NaN never does. One
// workgroup. What changes from answer to answer is in `control`: how many tokens were taken, how many have to be before [RET] may be, the number of
// [RET] (0xffffffff: none), the factor's bits; then the tokens, as many as there is room for.
struct Params {
    V: u32,   // logits
    Row: u32, // the row of the token table that the logits belong to
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>; // (V) f32 bits
@group(0) @binding(2) var<storage, read_write> control: array<u32>; // 4 words, then tokens
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
