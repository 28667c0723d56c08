// Four columns of a head at once, columns 4·c to 4·c+3, for heads and rows of any size: columns beyond the head are zero and not stored.
fn within(c: u32) -> vec4<bool> {
    return vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.Dh);
}

fn query1(i: u32) -> f32 {
    return q[i >> 2u][i & 3u];
}

fn kv1(i: u32) -> f32 {
    return kv[i >> 2u][i & 3u];
}

fn kv4(i: u32, c: u32) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(kv1(i), kv1(i + 1u), kv1(i + 2u), kv1(i + 3u)), within(c));
}

fn query4(t: u32, h: u32, c: u32) -> vec4<f32> {
    let i = t * p.QStride + h * p.Dh + 4u * c;
    return select(vec4<f32>(), vec4<f32>(query1(i), query1(i + 1u), query1(i + 2u), query1(i + 3u)), within(c));
}

fn key4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return kv4(row * p.KVStride + p.KOffset + h * p.Dh + 4u * c, c);
}

fn value4(row: u32, h: u32, c: u32) -> vec4<f32> {
    return kv4(row * p.KVStride + p.VOffset + h * p.Dh + 4u * c, c);
}
