// Products of pairs of a token and an expert with that expert's rows: the bound weight holds COUNT
// experts of N rows each, beginning with expert FIRST of E. x has a row for DIV pairs, y one for
// each; pairs of experts elsewhere are skipped. linear.wgsl or gated.wgsl binds `pairs`: the pairs'
// experts (T,), or for tiles what expert_order gives: TILES tiles of at most TT pairs.

const DIV: u32 = 1u;
const NO_PAIR: u32 = 0xffffffffu;

// The expert whose rows are read, counted from FIRST.
var<private> expert: u32;

fn x_row(pair: u32) -> u32 {
    return pair / DIV;
}

// Of tile i the expert, counted from FIRST, the first place in the order, and the number of pairs: 0
// when there is no such tile or its expert is elsewhere.
fn tile_at(i: u32) -> vec3<u32> {
    if i >= pairs[0] {
        return vec3<u32>();
    }
    let at = 1u + 3u * i;
    let own = pairs[at] - args.FIRST;
    return vec3<u32>(own, pairs[at + 1u], select(0u, pairs[at + 2u], own < args.COUNT));
}

fn pair_at(place: u32) -> u32 {
    return pairs[1u + 3u * args.TILES + place];
}
