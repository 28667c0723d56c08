// The number of a workgroup in a grid that package shaders may have spread over two dimensions.
fn group_number(group: vec3<u32>) -> u32 {
    return group.y * 32768u + group.x;
}
