struct Params {
    T: u32,         // tokens
    Heads: u32,
    Dh: u32,        // columns of a head, at most 256
    QStride: u32,   // values in a row of q
    KVStride: u32,  // values in a row of kv
    KOffset: u32,   // column of the first head's keys
    VOffset: u32,   // column of the first head's values
    Scale: f32,     // 1/√Dh as a rule
}
