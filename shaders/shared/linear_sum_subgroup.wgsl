// The sum of v over a workgroup that is one subgroup. All get it; all must call.
fn sum_over_lanes(v: vec4<f32>, lane: u32) -> vec4<f32> {
    return subgroupAdd(v);
}
