//#kernel linear
// y[t, F0+f] = act(Σ_k x[t,k]·w[f,k] + bias[F0+f]) + residual[t, F0+f], without workgroup memory: an invocation makes TOKENS tokens × 4 features in
// registers. For devices on which a CPU does the work, where barriers are slow, each lane of a vector reads by itself, and branches, loops and variables
// cost more than products.
//#import linear_head

const WG: u32 = 8u;
const TOKENS: u32 = 8u; // tokens of an invocation: 1, 4 or 8

struct Four {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

//#import weight
//#import linear_four
//#import erf
//#import activate
//#import linear_out
//#import linear_near
//#import grid

fn sum_of(n: Four, w: Four) -> f32 {
    return dot(n.a, w.a) + dot(n.b, w.b) + dot(n.c, w.c) + dot(n.d, w.d);
}

fn store4(t: u32, f: u32, v: vec4<f32>) {
    if (t >= p.T) {
        return;
    }
    if (f < p.F) {
        store(t, f, v.x);
    }
    if (f + 1u < p.F) {
        store(t, f + 1u, v.y);
    }
    if (f + 2u < p.F) {
        store(t, f + 2u, v.z);
    }
    if (f + 3u < p.F) {
        store(t, f + 3u, v.w);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_number(group);
    let columns = (p.F + 4u * WG - 1u) / (4u * WG);
    let f = (n % columns * WG + lane) * 4u;
    let t = n / columns * TOKENS;
    if (t >= p.T) {
        return;
    }
    // Beyond the last feature or token, the last is computed again and not stored.
    let f0 = min(f, p.F - 1u);
    let f1 = min(f + 1u, p.F - 1u);
    let f2 = min(f + 2u, p.F - 1u);
    let f3 = min(f + 3u, p.F - 1u);
    let K4 = p.K >> 2u;
    //#repeat t TOKENS
    let x#t = min(t + #tu, p.T - 1u) * K4;
    var a#t = vec4<f32>();
    //#end
    for (var u = 0u; u < K4; u += 4u * FOURS) {
        //#repeat t TOKENS
        let v#t = bring(x#t + u, lane);
        //#end
        //#repeat i FOURS
        {
            let w0 = four(f0, (u >> 2u) + #iu);
            let w1 = four(f1, (u >> 2u) + #iu);
            let w2 = four(f2, (u >> 2u) + #iu);
            let w3 = four(f3, (u >> 2u) + #iu);
            //#repeat t TOKENS
            let n#t = near(v#t, #iu, x#t + u);
            a#t += vec4<f32>(sum_of(n#t, w0), sum_of(n#t, w1), sum_of(n#t, w2), sum_of(n#t, w3));
            //#end
        }
        //#end
    }
    //#repeat t TOKENS
    store4(t + #tu, f, a#t);
    //#end
}
