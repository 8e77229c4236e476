// Dot products of all rows with many tokens by tiles in workgroup memory: 16 RN rows by 16 RT
// tokens a workgroup of 256, a chunk of 32 elements a step, RN x RT sums an invocation.
// linear.wgsl or gated.wgsl says what a row is.
//
// Tiles are [row][quad of 4 elements]; quads are swizzled by the row so that neighbouring
// invocations, which read neighbouring rows, hit different banks. F16: tiles hold f16, which
// doubles what a bank delivers; products and sums are f32. EXPERTS: a tile's pairs have one expert.

const RN: u32 = 4u;
const RT: u32 = 4u;
const TN: u32 = 16u * RN;
const TT: u32 = 16u * RT;
const CHUNKS: u32 = (K + 31u) / 32u;

#if F16
alias Tile4 = vec4<f16>;

fn narrow(v: vec4<f32>) -> Tile4 {
    return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
#else
alias Tile4 = vec4<f32>;

fn narrow(v: vec4<f32>) -> Tile4 {
    return v;
}
#endif

var<workgroup> tile_w: array<Tile4, PLANES * TN * 8u>;
var<workgroup> tile_x: array<Tile4, TT * 8u>;

fn place(row: u32, quad: u32) -> u32 {
    return row * 8u + (quad ^ (row & 7u));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = group.x + group.y * groups.x;
#if EXPERTS
    let n0 = tile / args.TILES * TN;
    let chosen = tile_at(tile % args.TILES);
    if n0 >= args.N || chosen.z == 0u {
        return;
    }
    expert = chosen.x;
    // Rows of x that this invocation copies.
    var copied: array<u32, (TT * 8u + 255u) / 256u>;
    for (var i = local; i < TT * 8u; i += 256u) {
        copied[i / 256u] = x_row(pair_at(chosen.y + min(i / 8u, chosen.z - 1u)));
    }
#else
    let token_tiles = (args.T + TT - 1u) / TT;
    let t0 = tile % token_tiles * TT;
    let n0 = tile / token_tiles * TN;
    if n0 >= args.N {
        return;
    }
#endif
    let n = local % 16u;
    let t = local / 16u;
    var sums: array<Sum, RN * RT>;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        for (var i = local; i < TN * 4u; i += 256u) {
            let row = i / 4u;
            let j = i % 4u;
            let e = decode(load(min(n0 + row, args.N - 1u), chunk), j);
            tile_put(place(row, 2u * j), place(row, 2u * j + 1u), e);
        }
        for (var i = local; i < TT * 8u; i += 256u) {
            let row = i / 8u;
            let quad = i % 8u;
#if EXPERTS
            let token = copied[i / 256u];
#else
            let token = min(t0 + row, args.T - 1u);
#endif
            tile_x[place(row, quad)] = narrow(x_at(token, 8u * chunk + quad));
        }
        workgroupBarrier();
        for (var quad = 0u; quad < 8u; quad += 1u) {
            var xs: array<vec4<f32>, RT>;
            for (var i = 0u; i < RT; i += 1u) {
                xs[i] = vec4<f32>(tile_x[place(t + 16u * i, quad)]);
            }
            for (var r = 0u; r < RN; r += 1u) {
                let e = tile_get(place(n + 16u * r, quad));
                for (var i = 0u; i < RT; i += 1u) {
                    sums[r * RT + i] += dot4(e, xs[i]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < RN * RT; i += 1u) {
#if EXPERTS
        let row = t + 16u * (i % RT);
        if row < chosen.z {
            store(pair_at(chosen.y + row), n0 + n + 16u * (i / RT), sums[i]);
        }
#else
        store(t0 + t + 16u * (i % RT), n0 + n + 16u * (i / RT), sums[i]);
#endif
    }
}
