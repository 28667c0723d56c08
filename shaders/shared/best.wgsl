// The best of a set of numbered f32 values: the largest, among equals the one with the lowest number. Values are compared as integers, since
// WGSL lets a compiler assume that there are no NaNs and infinities.
struct Best {
    key: u32,
    row: u32,
}

const NOTHING = Best(0u, 0xffffffffu);

// A key that grows with the value: 0 for NaN, the same for −0 and 0.
fn order_key(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0u;
    }
    if (bits >= 0x80000000u) {
        return 0x80000000u - (bits - 0x80000000u);
    }
    return bits + 0x80000000u;
}

// The value's bits: the inverse of order_key; −∞ for key 0.
fn key_bits(key: u32) -> u32 {
    if (key >= 0x80000000u) {
        return key - 0x80000000u;
    }
    return select(0x80000000u + (0x80000000u - key), 0xff800000u, key == 0u);
}

fn better(a: Best, b: Best) -> bool {
    return a.key > b.key || (a.key == b.key && a.row < b.row);
}
