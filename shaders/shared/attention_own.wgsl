// Takes columns 4·c to 4·c+3 of head h's keys and values from the token itself to its row of kv. Sizes and offsets are multiples of 4. Needs `four`.
fn store_own(h: u32, c: u32) {
    let row = (tokens[2] + tokens[1]) * p.KVStride;
    let key = p.KOffset + h * p.Dh;
    let value = p.VOffset + h * p.Dh;
    kv[((row + key) >> 2u) + c] = kept(q[((p.Source + key) >> 2u) + c]);
    kv[((row + value) >> 2u) + c] = kept(q[((p.Source + value) >> 2u) + c]);
}
