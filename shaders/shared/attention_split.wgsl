// Which rows a part has, from x up to y, both counted from the token's first. Needs count_of.
fn rows_of(split: u32) -> vec2<u32> {
    let count = count_of(0u);
    let each = (count + p.Splits - 1u) / p.Splits;
    let start = min(split * each, count);
    return vec2<u32>(start, min(start + each, count));
}

// Whether a part writes the token's own row: the one that reads it, the first where none does.
fn owns(split: u32) -> bool {
    let rows = rows_of(split);
    let own = tokens[1];
    return (own >= rows.x && own < rows.y) || (own >= count_of(0u) && split == 0u);
}
