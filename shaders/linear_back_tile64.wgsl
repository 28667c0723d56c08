//#kernel linear_back
// dx[t,k] = Σ_f dy[t, F0+f]·w[f,k], plus add[t,k] or what dx holds, in tiles of 64 tokens × 64 values.
//#import linear_back_head
//#import weight
//#import grid
//#import tile_64
//#import linear_back_tiles

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    tile(group_number(group), lane);
}
