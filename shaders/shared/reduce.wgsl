// Reductions over a workgroup of WG invocations, WG a power of two. All invocations get the result; all must call.
var<workgroup> reduced: array<f32, WG>;

fn sum_over_group(v: f32, lane: u32) -> f32 {
    reduced[lane] = v;
    for (var n = WG >> 1u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if (lane < n) {
            reduced[lane] += reduced[lane + n];
        }
    }
    workgroupBarrier();
    let sum = reduced[0];
    workgroupBarrier();
    return sum;
}

fn max_over_group(v: f32, lane: u32) -> f32 {
    reduced[lane] = v;
    for (var n = WG >> 1u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if (lane < n) {
            reduced[lane] = max(reduced[lane], reduced[lane + n]);
        }
    }
    workgroupBarrier();
    let largest = reduced[0];
    workgroupBarrier();
    return largest;
}
