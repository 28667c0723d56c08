// The sum of v over the invocations of a workgroup that have one column, lane % COLUMNS; WG and COLUMNS are powers of two. All get the sum of
// their column; all must call.
var<workgroup> partial: array<vec4<f32>, WG>;

fn sum_over_slices(v: vec4<f32>, lane: u32) -> vec4<f32> {
    partial[lane] = v;
    for (var n = WG >> 1u; n >= COLUMNS; n >>= 1u) {
        workgroupBarrier();
        if (lane < n) {
            partial[lane] += partial[lane + n];
        }
    }
    workgroupBarrier();
    let sum = partial[lane % COLUMNS];
    workgroupBarrier();
    return sum;
}
