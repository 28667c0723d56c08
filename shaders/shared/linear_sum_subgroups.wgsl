// The sum of v over a workgroup of WG invocations that lie in subgroups of any size, in any order: each subgroup's first invocation brings
// its sum to workgroup memory, the others bring nothing. All get the sum; all must call.
var<workgroup> partial: array<vec4<f32>, WG>;

fn sum_over_lanes(v: vec4<f32>, lane: u32) -> vec4<f32> {
    let part = subgroupAdd(v);
    partial[lane] = select(vec4<f32>(), part, subgroupBroadcastFirst(lane) == lane);
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var i = 0u; i < WG; i++) {
        sum += partial[i];
    }
    workgroupBarrier();
    return sum;
}
