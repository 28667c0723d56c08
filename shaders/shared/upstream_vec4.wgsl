// Four columns of a head of dy, where the head's size is a multiple of 4.
fn upstream4(t: u32, h: u32, c: u32) -> vec4<f32> {
    return dy[(((t * p.Heads + h) * p.Dh) >> 2u) + c];
}
