//#kernel store_rows
// Where all sizes and offsets are multiples of 4: four values an invocation, kept in y as f32 or f16.
//#import store_rows_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (T,SourceStride)
@group(0) @binding(2) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(3) var<storage, read_write> y: array<Kept>; // (rows,TargetStride)

const WG: u32 = 64u;

//#import grid
//#import four

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group) * WG + lane;
    let fours = p.Width >> 2u;
    let t = n / fours;
    if (t >= p.T) {
        return;
    }
    let i = n % fours;
    let row = tokens[4u * t + 2u] + tokens[4u * t + 1u];
    y[((row * p.TargetStride + p.TargetOffset) >> 2u) + i] = kept(x[((t * p.SourceStride + p.SourceOffset) >> 2u) + i]);
}
