// How four values of a buffer are kept: as f32. four_f16.wgsl is the other way.
alias Kept = vec4<f32>;

fn widened(v: Kept) -> vec4<f32> {
    return v;
}

fn kept(v: vec4<f32>) -> Kept {
    return v;
}
