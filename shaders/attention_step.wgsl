// Attention of one token over its rows of kv, as attention.wgsl, after its own keys and values were stored: store_rows.wgsl and attention.wgsl in one.
// One workgroup a head, which alone looks at that head's columns of kv.
//#import attention_step_head

const WG: u32 = 128u;
const QUADS: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid
//#import reduce
//#import four
//#import rows
//#import attention_out
//#import attention_own
//#import attention_chunks
//#import attention_whole

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    if (n < p.Heads) {
        if (lane < p.Dh / 4u) {
            store_own(n, lane);
        }
        storageBarrier();
        attend(n, lane);
    }
}
