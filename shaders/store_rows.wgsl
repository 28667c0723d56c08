// y[(first + position)·TargetStride + TargetOffset + i] = x[t·SourceStride + SourceOffset + i] for i < Width, with first and position from the
// token table: each token's keys or values to its row of the cache.
//#import store_rows_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T,SourceStride)
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows,TargetStride)

const WG: u32 = 64u;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    let t = n / p.Width;
    if (t >= p.T) {
        return;
    }
    let i = n % p.Width;
    let row = tokens[4u * t + 2u] + tokens[4u * t + 1u];
    y[row * p.TargetStride + p.TargetOffset + i] = x[t * p.SourceStride + p.SourceOffset + i];
}
