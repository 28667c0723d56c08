// y[h] = Σ_s exp(largest[h,s] − largest[h]) · values[h,s] / Σ_s exp(largest[h,s] − largest[h]) · weight[h,s]: what the parts of attention_part.wgsl make
// together; zeros where no part has rows.
struct Params {
    Heads: u32,
    Dh: u32,        // columns of a head, a multiple of 4
    Splits: u32,    // parts of a head's rows
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>; // (Heads,Splits,Dh+4): Σ weight·value; the largest score, Σ weight and two zeros
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // (Heads·Dh)

const WG: u32 = 64u;

const LOWEST = -3.0e38;

//#import grid

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_number(group) * WG + lane;
    let quads = p.Dh / 4u;
    if (i >= p.Heads * quads) {
        return;
    }
    let line = quads + 1u;
    let at = i / quads * p.Splits * line;
    var largest = LOWEST;
    for (var s = 0u; s < p.Splits; s++) {
        largest = max(largest, parts[at + s * line + quads].x);
    }
    var values = vec4<f32>();
    var weight = 0.0;
    for (var s = 0u; s < p.Splits; s++) {
        let part = parts[at + s * line + quads];
        let keep = exp(part.x - largest);
        values += keep * parts[at + s * line + i % quads];
        weight += keep * part.y;
    }
    y[i] = select(values / weight, vec4<f32>(), weight == 0.0);
}
