// Attention of one token and head, n = t·Heads + h, by a workgroup. Needs `attention_chunks` and `attention_out`; all invocations must call.
fn attend(n: u32, lane: u32) {
    let t = n / p.Heads;
    let h = n % p.Heads;
    let count = count_of(t);
    let quads = (p.Dh + 3u) >> 2u;
    let a = attended(t, h, tokens[4u * t + 2u], count, lane);
    if (lane < quads) {
        store4(n, lane, select(a.values / a.weight, vec4<f32>(), count == 0u));
    }
}
