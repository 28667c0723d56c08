// Four columns of a head at once, columns 4·c to 4·c+3, where the head's size and all strides and offsets are multiples of 4. Needs `four`.
fn within(c: u32) -> vec4<bool> {
    return vec4<bool>(true);
}

fn query4(t: u32, h: u32, c: u32) -> vec4<f32> {
    return q[((t * p.QStride + h * p.Dh) >> 2u) + c];
}

fn key4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return widened(kv[((row * p.KVStride + p.KOffset + h * p.Dh) >> 2u) + c]);
}

fn value4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return widened(kv[((row * p.KVStride + p.VOffset + h * p.Dh) >> 2u) + c]);
}
