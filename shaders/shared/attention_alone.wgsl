// Attention of one token and head by one invocation: eight rows of kv at a time, sums where `result4` and `store4` have the n-th head. Needs `rows` and those.
fn largest_of(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// How many rows token t attends to: no more than there can be, so that a wild table costs no more time than a good one.
fn count_of(t: u32) -> u32 {
    return min(tokens[4u * t + 3u], arrayLength(&kv) * 4u / p.KVStride + 1u);
}

// Sums weight · value over count rows from first on; returns the largest score, LOWEST if there are no rows, and Σ weight.
fn attended(n: u32, t: u32, h: u32, first: u32, count: u32) -> vec2<f32> {
    let quads = (p.Dh + 3u) >> 2u;
    for (var c = 0u; c < quads; c++) {
        store4(n, c, vec4<f32>());
    }
    var largest = LOWEST;
    var sum = 0.0;
    for (var start = 0u; start < count; start += 8u) {
        // Rows beyond the last stand for it, with weight 0.
        let last = first + count - 1u;
        let r0 = first + start;
        let r1 = min(r0 + 1u, last);
        let r2 = min(r0 + 2u, last);
        let r3 = min(r0 + 3u, last);
        let r4 = min(r0 + 4u, last);
        let r5 = min(r0 + 5u, last);
        let r6 = min(r0 + 6u, last);
        let r7 = min(r0 + 7u, last);
        var a = vec4<f32>();
        var b = vec4<f32>();
        for (var c = 0u; c < quads; c++) {
            let q4 = query4(t, h, c);
            a += vec4<f32>(dot(q4, key4(r0, h, c)), dot(q4, key4(r1, h, c)), dot(q4, key4(r2, h, c)), dot(q4, key4(r3, h, c)));
            b += vec4<f32>(dot(q4, key4(r4, h, c)), dot(q4, key4(r5, h, c)), dot(q4, key4(r6, h, c)), dot(q4, key4(r7, h, c)));
        }
        let number = vec4<u32>(start) + vec4<u32>(0u, 1u, 2u, 3u);
        a = select(vec4<f32>(LOWEST), p.Scale * a, number < vec4<u32>(count));
        b = select(vec4<f32>(LOWEST), p.Scale * b, number + 4u < vec4<u32>(count));
        let before = largest;
        largest = max(before, max(largest_of(a), largest_of(b)));
        let keep = exp(before - largest);
        a = exp(a - largest);
        b = exp(b - largest);
        sum = sum * keep + dot(a, vec4<f32>(1.0)) + dot(b, vec4<f32>(1.0));
        for (var c = 0u; c < quads; c++) {
            var v = keep * result4(n, c);
            v += a.x * value4(r0, h, c) + a.y * value4(r1, h, c) + a.z * value4(r2, h, c) + a.w * value4(r3, h, c);
            v += b.x * value4(r4, h, c) + b.y * value4(r5, h, c) + b.z * value4(r6, h, c) + b.w * value4(r7, h, c);
            store4(n, c, v);
        }
    }
    return vec2<f32>(largest, sum);
}
