// Dot products of a few rows of the weight with one token, or with TB4 four tokens, an invocation:
// no barrier, no workgroup memory, for adapters that are CPUs. linear.wgsl or gated.wgsl says what
// a row is.
//
// Everything is written out: compilers for CPUs keep arrays and what is indexed by a variable in
// memory. R4: four rows, otherwise two; each chunk of x is read once for all of them. TILED: the four
// tokens are pairs of a tile, see experts.wgsl. NORM and QUADS: see rows.wgsl.

const WG: u32 = 8u;
const CHUNKS: u32 = (K + 31u) / 32u;
#if R4
const R: u32 = 4u;
#else
const R: u32 = 2u;
#endif
#if TB4
const TB: u32 = 4u;
#else
const TB: u32 = 1u;
#endif

// Sums of one token with each row.
struct Column {
    r0: Sum,
    r1: Sum,
#if R4
    r2: Sum,
    r3: Sum,
#endif
}

// A chunk of each row.
struct Blocks {
    r0: Block,
    r1: Block,
#if R4
    r2: Block,
    r3: Block,
#endif
}

// Eight elements of each row.
struct Eights {
    r0: Elements,
    r1: Elements,
#if R4
    r2: Elements,
    r3: Elements,
#endif
}

fn blocks_at(n: u32, chunk: u32) -> Blocks {
    let last = args.N - 1u;
    return Blocks(
        load(n, chunk),
        load(min(n + 1u, last), chunk),
#if R4
        load(min(n + 2u, last), chunk),
        load(min(n + 3u, last), chunk),
#endif
    );
}

fn eights_of(b: Blocks, j: u32) -> Eights {
    return Eights(
        decode(b.r0, j),
        decode(b.r1, j),
#if R4
        decode(b.r2, j),
        decode(b.r3, j),
#endif
    );
}

fn add_product(sums: Column, e: Eights, token: u32, quad: u32) -> Column {
    var lo = x_at(token, quad);
    var hi = x_at(token, quad + 1u);
#if NORM
    lo *= norm_at(quad);
    hi *= norm_at(quad + 1u);
#endif
    return Column(
        sums.r0 + dot8(e.r0, lo, hi),
        sums.r1 + dot8(e.r1, lo, hi),
#if R4
        sums.r2 + dot8(e.r2, lo, hi),
        sums.r3 + dot8(e.r3, lo, hi),
#endif
    );
}

#if NORM
fn scale_of(token: u32) -> f32 {
    var squares = 0.0;
    for (var quad = 0u; quad < (K + 3u) / 4u; quad += 1u) {
        let four = x_at(token, quad);
        squares += dot(four, four);
    }
    return rms_scale(squares);
}
#endif

fn store_column(t: u32, n: u32, token: u32, raw: Column) {
#if NORM
    let scale = scale_of(token);
    let sums = Column(
        raw.r0 * scale,
        raw.r1 * scale,
#if R4
        raw.r2 * scale,
        raw.r3 * scale,
#endif
    );
#else
    let sums = raw;
#endif
#if QUADS
    store_quad(t, n, vec4<f32>(sums.r0, sums.r1, sums.r2, sums.r3));
#else
    store(t, n, sums.r0);
    store(t, n + 1u, sums.r1);
#if R4
    store(t, n + 2u, sums.r2);
    store(t, n + 3u, sums.r3);
#endif
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = group.x + group.y * groups.x;
#if TILED
    // Four pairs of a tile.
    let fours = args.TT / 4u;
    let token_blocks = args.TILES * fours;
    let chosen = tile_at(block % token_blocks / fours);
    let t = block % fours * 4u;
#else
    let token_blocks = (args.T + TB - 1u) / TB;
    let t = block % token_blocks * TB;
#endif
    let n = (block / token_blocks * WG + local) * R;
    if n >= args.N {
        return;
    }
    // Rows of x, and of y: beyond the end for what there is not.
#if TILED
    if t >= chosen.z {
        return;
    }
    expert = chosen.x;
    let last = chosen.z - 1u;
    let each = vec4<u32>(
        pair_at(chosen.y + t),
        pair_at(chosen.y + min(t + 1u, last)),
        pair_at(chosen.y + min(t + 2u, last)),
        pair_at(chosen.y + min(t + 3u, last)),
    );
    let tokens = each / vec4<u32>(DIV);
    let to = select(vec4<u32>(NO_PAIR), each, vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(last - t));
#else
#if EXPERTS
    expert = pairs[t] - args.FIRST;
    if expert >= args.COUNT {
        return;
    }
#endif
    let to = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
    let tokens = vec4<u32>(
        x_row(t),
        min(t + 1u, args.T - 1u),
        min(t + 2u, args.T - 1u),
        min(t + 3u, args.T - 1u),
    );
#endif
    var c0: Column;
#if TB4
    var c1: Column;
    var c2: Column;
    var c3: Column;
#endif
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        let b = blocks_at(n, chunk);
        let e0 = eights_of(b, 0u);
        let e1 = eights_of(b, 1u);
        let e2 = eights_of(b, 2u);
        let e3 = eights_of(b, 3u);
        let quad = 8u * chunk;
        c0 = add_product(c0, e0, tokens.x, quad);
        c0 = add_product(c0, e1, tokens.x, quad + 2u);
        c0 = add_product(c0, e2, tokens.x, quad + 4u);
        c0 = add_product(c0, e3, tokens.x, quad + 6u);
#if TB4
        c1 = add_product(c1, e0, tokens.y, quad);
        c1 = add_product(c1, e1, tokens.y, quad + 2u);
        c1 = add_product(c1, e2, tokens.y, quad + 4u);
        c1 = add_product(c1, e3, tokens.y, quad + 6u);
        c2 = add_product(c2, e0, tokens.z, quad);
        c2 = add_product(c2, e1, tokens.z, quad + 2u);
        c2 = add_product(c2, e2, tokens.z, quad + 4u);
        c2 = add_product(c2, e3, tokens.z, quad + 6u);
        c3 = add_product(c3, e0, tokens.w, quad);
        c3 = add_product(c3, e1, tokens.w, quad + 2u);
        c3 = add_product(c3, e2, tokens.w, quad + 4u);
        c3 = add_product(c3, e3, tokens.w, quad + 6u);
#endif
    }
    store_column(to.x, n, tokens.x, c0);
#if TB4
    store_column(to.y, n, tokens.y, c1);
    store_column(to.z, n, tokens.z, c2);
    store_column(to.w, n, tokens.w, c3);
#endif
}
