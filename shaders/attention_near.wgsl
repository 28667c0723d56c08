//#kernel attention
// Attention for adapters on a CPU with subgroups of NEAR lanes: the lanes are neighbouring tokens and one head, and where those attend from the same row
// on, as in one sequence, each reads one of NEAR rows and has the others from its neighbours. Sums are in y itself.
//#import attention_params

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (T,QStride); head h at column h·Dh
@group(0) @binding(2) var<storage, read> kv: array<Kept>; // (rows,KVStride)
@group(0) @binding(3) var<storage, read> tokens: array<u32>; // (T,4)
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // (T,Heads·Dh)

const NEAR: u32 = 8u; // lanes of a subgroup, 4 or 8; one subgroup is a workgroup

const LOWEST = -3.0e38;

//#import grid
//#import four
//#import rows

fn first_of(t: u32) -> u32 {
    return tokens[4u * min(t, p.T - 1u) + 2u];
}

// No more rows than there can be, so that a wild table costs no more time than a good one.
fn count_of(t: u32) -> u32 {
    return min(tokens[4u * min(t, p.T - 1u) + 3u], arrayLength(&kv) * 4u / p.KVStride + 1u);
}

fn largest_of(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The products of four weights with four rows of values, those of lanes j to j+3.
fn mixed(weights: vec4<f32>, v: vec4<f32>, j: u32) -> vec4<f32> {
    return weights.x * subgroupShuffle(v, j) + weights.y * subgroupShuffle(v, j + 1u) + weights.z * subgroupShuffle(v, j + 2u) + weights.w * subgroupShuffle(v, j + 3u);
}

// The products of a query with four rows of keys.
fn scored(q4: vec4<f32>, k: vec4<f32>, j: u32) -> vec4<f32> {
    return vec4<f32>(dot(q4, subgroupShuffle(k, j)), dot(q4, subgroupShuffle(k, j + 1u)), dot(q4, subgroupShuffle(k, j + 2u)), dot(q4, subgroupShuffle(k, j + 3u)));
}

@compute @workgroup_size(NEAR)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    let parts = (p.T + NEAR - 1u) / NEAR;
    if (n >= parts * p.Heads) {
        return;
    }
    let h = n / parts;
    let t0 = n % parts * NEAR;
    let within_table = t0 + lane < p.T;
    let t = min(t0 + lane, p.T - 1u);
    let quads = p.Dh >> 2u;
    let at = ((t * p.Heads + h) * p.Dh) >> 2u;
    if (within_table) {
        for (var c = 0u; c < quads; c++) {
            y[at + c] = vec4<f32>();
        }
    }
    var largest = LOWEST;
    var sum = 0.0;
    // A turn for every first row that tokens have, which is one as a rule.
    for (var turn = 0u; turn < NEAR; turn++) {
        let base = first_of(t0 + turn);
        var rows = 0u;
        var before = false;
        for (var i = 0u; i < NEAR; i++) {
            if (first_of(t0 + i) == base) {
                before = before || i < turn;
                rows = max(rows, count_of(t0 + i));
            }
        }
        if (before) {
            continue;
        }
        let mine = select(0u, count_of(t), first_of(t) == base);
        for (var start = 0u; start < rows; start += NEAR) {
            let r = base + min(start + lane, rows - 1u);
            var a = vec4<f32>();
            var b = vec4<f32>();
            for (var c = 0u; c < quads; c++) {
                let q4 = query4(t, h, c);
                let k = key4(r, h, c);
                a += scored(q4, k, 0u);
                if (NEAR > 4u) {
                    b += scored(q4, k, 4u);
                }
            }
            let number = vec4<u32>(start) + vec4<u32>(0u, 1u, 2u, 3u);
            a = select(vec4<f32>(LOWEST), p.Scale * a, number < vec4<u32>(mine));
            b = select(vec4<f32>(LOWEST), p.Scale * b, (number + 4u < vec4<u32>(mine)) & vec4<bool>(NEAR > 4u));
            let earlier = largest;
            largest = max(earlier, max(largest_of(a), largest_of(b)));
            let keep = exp(earlier - largest);
            // A lane without any of these rows has weights of 0 and keeps what it has.
            a = select(vec4<f32>(), exp(a - largest), a > vec4<f32>(LOWEST));
            b = select(vec4<f32>(), exp(b - largest), b > vec4<f32>(LOWEST));
            sum = sum * keep + dot(a, vec4<f32>(1.0)) + dot(b, vec4<f32>(1.0));
            for (var c = 0u; c < quads; c++) {
                let v = value4(r, h, c);
                var total = keep * y[at + c] + mixed(a, v, 0u);
                if (NEAR > 4u) {
                    total += mixed(b, v, 4u);
                }
                if (within_table) {
                    y[at + c] = total;
                }
            }
        }
    }
    if (within_table && count_of(t) > 0u) {
        for (var c = 0u; c < quads; c++) {
            y[at + c] /= sum;
        }
    }
}
