// Sixteen neighbouring values of a weight row, the i-th such. Bytes are −127 to 127, so that they can be taken for parts of 127: a CPU unpacks those in the
// fewest steps.
fn four(row: u32, i: u32) -> Four {
    let q = w[row * (p.K >> 4u) + i];
    let scale = 127.0 * scale_of(row, i >> 1u);
    return Four(scale * unpack4x8snorm(q.x), scale * unpack4x8snorm(q.y), scale * unpack4x8snorm(q.z), scale * unpack4x8snorm(q.w));
}
