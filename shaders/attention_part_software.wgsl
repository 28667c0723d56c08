//#kernel attention_part
// For adapters on a CPU: one invocation a part.
//#import attention_part_head

const WG: u32 = 8u;

const LOWEST = -3.0e38;

//#import grid
//#import four
//#import rows
//#import attention_own
//#import attention_alone
//#import attention_split

fn result4(n: u32, c: u32) -> vec4<f32> {
    return parts[n * (p.Dh / 4u + 1u) + c];
}

fn store4(n: u32, c: u32, v: vec4<f32>) {
    parts[n * (p.Dh / 4u + 1u) + c] = v;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    if (n >= p.Heads * p.Splits) {
        return;
    }
    let h = n / p.Splits;
    let split = n % p.Splits;
    if (owns(split)) {
        for (var c = 0u; c < p.Dh / 4u; c++) {
            store_own(h, c);
        }
    }
    let rows = rows_of(split);
    let a = attended(n, 0u, h, tokens[2] + rows.x, rows.y - rows.x);
    store4(n, p.Dh / 4u, vec4<f32>(a, 0.0, 0.0));
}
