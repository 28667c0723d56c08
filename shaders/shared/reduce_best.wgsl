// The best over a workgroup of WG invocations, WG a power of two; needs `best`. All invocations get the result; all must call.
var<workgroup> bests: array<Best, WG>;

fn best_over_group(v: Best, lane: u32) -> Best {
    bests[lane] = v;
    for (var n = WG >> 1u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if (lane < n && better(bests[lane + n], bests[lane])) {
            bests[lane] = bests[lane + n];
        }
    }
    workgroupBarrier();
    let best = bests[0];
    workgroupBarrier();
    return best;
}
