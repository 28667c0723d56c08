// Four columns of a head at once, columns 4·c to 4·c+3, where the head's size and all strides and offsets are multiples of 4.
fn query4(t: u32, h: u32, c: u32) -> vec4<f32> {
    return q[((t * p.QStride + h * p.Dh) >> 2u) + c];
}

fn key4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return kv[((row * p.KVStride + p.KOffset + h * p.Dh) >> 2u) + c];
}

fn value4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return kv[((row * p.KVStride + p.VOffset + h * p.Dh) >> 2u) + c];
}

fn result4(t: u32, h: u32, c: u32) -> vec4<f32> {
    let i = (t * p.Heads + h) * p.Dh + 4u * c;
    return vec4<f32>(y[i], y[i + 1u], y[i + 2u], y[i + 3u]);
}

fn store4(t: u32, h: u32, c: u32, v: vec4<f32>) {
    let i = (t * p.Heads + h) * p.Dh + 4u * c;
    y[i] = v.x;
    y[i + 1u] = v.y;
    y[i + 2u] = v.z;
    y[i + 3u] = v.w;
}
