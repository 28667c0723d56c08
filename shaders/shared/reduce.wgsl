// Reductions over a workgroup of WG invocations, WG a power of two. All invocations get the result; all must call.
var<workgroup> partial: array<f32, WG>;

fn sum_over_group(v: f32, lane: u32) -> f32 {
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

fn max_over_group(v: f32, lane: u32) -> f32 {
    partial[lane] = v;
    for (var half = WG >> 1u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if (lane < half) {
            partial[lane] = max(partial[lane], partial[lane + half]);
        }
    }
    workgroupBarrier();
    let largest = partial[0];
    workgroupBarrier();
    return largest;
}
