// Attention of one token in parts, so that a long context occupies a GPU of many cores: a head's rows of kv are cut into Splits parts, each by a
// workgroup, which leaves sums that attention_merge.wgsl puts together. As in attention_step.wgsl, the token's own keys and values are stored before.
//#import attention_part_head

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import four
//#import rows
//#import attention_own
//#import attention_chunks
//#import attention_split

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n >= p.Heads * p.Splits) {
        return;
    }
    let h = n / p.Splits;
    let split = n % p.Splits;
    let rows = rows_of(split);
    if (lane < p.Dh / 4u && owns(split)) {
        store_own(h, lane);
    }
    storageBarrier();
    let a = attended(0u, h, tokens[2] + rows.x, rows.y - rows.x, lane);
    let quads = p.Dh / 4u;
    let at = n * (quads + 1u);
    if (lane < quads) {
        parts[at + lane] = a.values;
    }
    if (lane == 0u) {
        parts[at + quads] = vec4<f32>(a.largest, a.weight, 0.0, 0.0);
    }
}
