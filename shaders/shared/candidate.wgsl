// Score i with the row that it belongs to, by the parameters and buffers of top_k; NOTHING where it is NaN or has no row. Needs `best`.
fn candidate(i: u32) -> Best {
    let key = order_key(scores[i]);
    var row = i;
    if (p.Indexed == 1u) {
        row = index[i];
    }
    if (key == NOTHING.key || row == NOTHING.row) {
        return NOTHING;
    }
    return Best(key, row);
}
