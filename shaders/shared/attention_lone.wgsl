// Attention of one token and head, n = t·Heads + h, by one invocation. Needs `attention_alone` and `attention_out`.
fn attend(n: u32) {
    let t = n / p.Heads;
    let count = count_of(t);
    let sum = attended(n, t, n % p.Heads, tokens[4u * t + 2u], count).y;
    if (count > 0u) {
        for (var c = 0u; c < (p.Dh + 3u) / 4u; c++) {
            store4(n, c, result4(n, c) / sum);
        }
    }
}
