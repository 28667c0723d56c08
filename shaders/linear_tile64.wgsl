//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], in tiles of 64 tokens × 64 features: for shapes that have too few large tiles
// to fill a device.
//#import linear_head
//#import weight
//#import erf
//#import activate
//#import linear_out
//#import grid
//#import tile_64
//#import linear_tiles
//#import linear_store4

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    tile(group_number(group), lane);
}
