//#kernel attention_step
// Attention of one token after its own keys and values were stored, for adapters on a CPU: one invocation a head.
//#import attention_step_head

const WG: u32 = 8u;

const LOWEST = -3.0e38;

//#import grid
//#import four
//#import rows
//#import attention_out
//#import attention_own
//#import attention_alone
//#import attention_lone

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n < p.Heads) {
        for (var c = 0u; c < p.Dh / 4u; c++) {
            store_own(n, c);
        }
        attend(n);
    }
}
