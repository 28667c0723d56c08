// The best of a set of numbered f32 values: the largest, among equals the one with the lowest number. Values are compared as integers, since
// WGSL lets a compiler assume that there are no NaNs and infinities. All invocations of a workgroup (WG, a power of two) get the result of
// best_over_group; all must call.
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

var<workgroup> bests: array<Best, WG>;

fn best_over_group(v: Best, lane: u32) -> Best {
    bests[lane] = v;
    for (var n = WG >> 1u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if (lane < n && better(bests[lane + n], bests[lane])) {
            bests[lane] = bests[lane + n];
        }
    }
    workgroupBarrier();
    let best = bests[0];
    workgroupBarrier();
    return best;
}
