// The softmax of a line of `logits`, one of its places being the label's, by a workgroup of WG invocations. Needs `reduce`; all invocations
// get the result, and all must call with the same arguments.
struct LineStats {
    largest: f32,  // logit
    sum: f32,      // Σ exp(logit − largest)
    mark: f32,     // the label's logit
    rank: f32,     // how many logits are larger than the label's, or equal to it at a lower place: 0 where it is the most likely
}

// The line is logits[start + i·stride] for i < n; label < n.
fn line_stats(start: u32, stride: u32, n: u32, label: u32, lane: u32) -> LineStats {
    let mark = logits[start + label * stride];
    var largest = -3.4028234e38;
    var sum = 0.0;
    var rank = 0u;
    for (var i = lane; i < n; i += WG) {
        let v = logits[start + i * stride];
        if (v > largest) {
            sum = sum * exp(largest - v) + 1.0;
            largest = v;
        } else {
            sum += exp(v - largest);
        }
        if (v > mark || (v == mark && i < label)) {
            rank++;
        }
    }
    let most = max_over_group(largest, lane);
    return LineStats(most, sum_over_group(sum * exp(largest - most), lane), mark, sum_over_group(f32(rank), lane));
}

// −log softmax at the label.
fn nll_of(stats: LineStats) -> f32 {
    return log(stats.sum) + (stats.largest - stats.mark);
}
