// The sum of v over a workgroup of WG invocations, WG a power of two, through workgroup memory. All get it; all must call.
var<workgroup> partial: array<vec4<f32>, WG>;

fn sum_over_lanes(v: vec4<f32>, lane: u32) -> vec4<f32> {
    partial[lane] = v;
    for (var half = WG >> 1u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if (lane < half) {
            partial[lane] += partial[lane + half];
        }
    }
    workgroupBarrier();
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}
