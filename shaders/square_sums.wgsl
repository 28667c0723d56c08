// y[At + n] = Σ g[i]² over block n of the N values of g from place First on: one workgroup a block of BLOCK values.
struct Params {
    First: u32,  // place of the first value
    N: u32,      // values
    At: u32,     // place of the first sum in y
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const WG: u32 = 256u;
const BLOCK: u32 = 131072u;

//#import grid
//#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    let start = n * BLOCK;
    if (start >= p.N) {
        return;
    }
    let end = p.First + min(p.N, start + BLOCK);
    // Four values in flight, and shorter sums.
    var sums = vec4<f32>();
    for (var i = p.First + start + lane; i < end; i += 4u * WG) {
        let at = vec4<u32>(i) + WG * vec4<u32>(0u, 1u, 2u, 3u);
        let last = min(at, vec4<u32>(end - 1u));
        let v = select(vec4<f32>(), vec4<f32>(g[last.x], g[last.y], g[last.z], g[last.w]), at == last);
        sums += v * v;
    }
    let sum = sum_over_group(dot(sums, vec4<f32>(1.0)), lane);
    if (lane == 0u) {
        y[p.At + n] = sum;
    }
}
