// Scores and sums of one token and head over count rows of kv from first on, by a workgroup of WG invocations. Rows come in chunks of WG: each lane scores
// one row, then each lane sums four columns over one slice of the chunk. The softmax is online (Milakov & Gimelshein 2018), so that memory does not depend
// on count. Needs `reduce` and `rows`; all invocations must call.
var<workgroup> query: array<vec4<f32>, QUADS>;
var<workgroup> weights: array<f32, WG>;
var<workgroup> sums: array<vec4<f32>, WG>;

struct Attended {
    values: vec4<f32>, // Σ weight · value in columns 4·lane to 4·lane+3, where the head has them
    largest: f32, // score; LOWEST if there are no rows
    weight: f32, // Σ exp(score − largest)
}

fn attended(t: u32, h: u32, first: u32, count: u32, lane: u32) -> Attended {
    let quads = (p.Dh + 3u) >> 2u;
    if (lane < quads) {
        query[lane] = p.Scale * query4(t, h, lane);
    }
    workgroupBarrier();
    let slices = WG / quads;
    let slice = lane / quads;
    let column = lane % quads;

    var largest = LOWEST;
    var sum = 0.0;
    var acc = vec4<f32>();
    for (var start = 0u; start < count; start += WG) {
        let j = start + lane;
        var score = LOWEST;
        if (j < count) {
            score = 0.0;
            for (var c = 0u; c < quads; c++) {
                score += dot(query[c], key4(first + j, h, c));
            }
        }
        let before = largest;
        largest = max(before, max_over_group(score, lane));
        let keep = exp(before - largest);
        let weight = exp(score - largest);
        weights[lane] = weight;
        workgroupBarrier();
        sum = sum * keep + weight;
        acc *= keep;
        if (slice < slices) {
            let rest = min(WG, count - start);
            for (var i = slice; i < rest; i += slices) {
                acc += weights[i] * value4(first + start + i, h, column);
            }
        }
    }
    sums[lane] = acc;
    sum = sum_over_group(sum, lane);
    if (lane < quads) {
        for (var s = 1u; s < slices; s++) {
            acc += sums[s * quads + lane];
        }
    }
    return Attended(acc, largest, sum);
}

// How many rows token t attends to: no more than there can be, so that a wild table costs no more time than a good one.
fn count_of(t: u32) -> u32 {
    return min(tokens[4u * t + 3u], arrayLength(&kv) * 4u / p.KVStride + 1u);
}
