// Four values of a buffer kept as f16, two a word. What is too large becomes the largest finite value.
alias Kept = vec2<u32>;

fn widened(v: Kept) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn kept(v: vec4<f32>) -> Kept {
    let c = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));
}
