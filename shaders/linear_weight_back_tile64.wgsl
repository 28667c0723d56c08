//#kernel linear_weight_back
// dw[f,k] += Σ_t dy[t, F0+f]·x[t,k] and db[f] += Σ_t dy[t, F0+f], in tiles of 64 features × 64 values.
//#import linear_weight_back_head
//#import grid
//#import tile_64
//#import linear_weight_back_tiles

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    tile(n, lane);
    bias(n, lane);
}
