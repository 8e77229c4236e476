// conv: y[n, f, o] = sum_{c, k} w[f, c, k] x[n, f / (F / G) * (C / G) + c, o S + k D - P] (+ bias[f])
//
// x     (N, C, ID, IH, IW)      f32  read    zero outside
// w     (F, C / G, KD, KH, KW)  f32  read
// bias  (F,)                    f32  read, with BIAS
// y     (N, F, OD, OH, OW)      f32  write
//
// One to three spatial dimensions: the missing ones have size 1. Dispatch: an invocation has one
// place o and EACH channels f of a group, neighbours neighbouring places; no barrier. Sums are f32.
// Source: PyTorch, torch.nn.Conv1d, Conv2d. Reference: core/src/kernels/conv.rs.

const EACH: u32 = 1u;
const WG: u32 = 64u;

struct Args {
    N: u32,
    C: u32,
    F: u32,
    G: u32,
    KD: u32,
    KH: u32,
    KW: u32,
    SD: u32,
    SH: u32,
    SW: u32,
    DD: u32,
    DH: u32,
    DW: u32,
    PD: u32,
    PH: u32,
    PW: u32,
    ID: u32,
    IH: u32,
    IW: u32,
    OD: u32,
    OH: u32,
    OW: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let cg = args.C / args.G;
    let fg = args.F / args.G;
    let taps = args.KD * args.KH * args.KW;
    let blocks = (fg + EACH - 1u) / EACH;
    let i = (group.x + group.y * groups.x) * WG + lane;
    let places = args.OD * args.OH * args.OW;
    let place = i % places;
    let block = i / places % blocks;
    let g = i / places / blocks % args.G;
    let n = i / places / blocks / args.G;
    if n >= args.N {
        return;
    }
    let ow = place % args.OW * args.SW;
    let oh = place / args.OW % args.OH * args.SH;
    let od = place / args.OW / args.OH * args.SD;
    let f0 = block * EACH;
    var sums: array<f32, EACH>;
#if BIAS
    for (var e = 0u; e < EACH; e += 1u) {
        sums[e] = bias[g * fg + min(f0 + e, fg - 1u)];
    }
#endif
    // Places in the padding wrap around to numbers that are too large.
    for (var kd = 0u; kd < args.KD; kd += 1u) {
        let d = od + kd * args.DD - args.PD;
        if d >= args.ID {
            continue;
        }
        for (var kh = 0u; kh < args.KH; kh += 1u) {
            let h = oh + kh * args.DH - args.PH;
            if h >= args.IH {
                continue;
            }
            for (var kw = 0u; kw < args.KW; kw += 1u) {
                let v = ow + kw * args.DW - args.PW;
                if v >= args.IW {
                    continue;
                }
                let tap = (kd * args.KH + kh) * args.KW + kw;
                let plane = args.ID * args.IH * args.IW;
                var at = (n * args.C + g * cg) * plane + (d * args.IH + h) * args.IW + v;
                for (var c = 0u; c < cg; c += 1u) {
                    let value = x[at];
                    for (var e = 0u; e < EACH; e += 1u) {
                        let f = g * fg + min(f0 + e, fg - 1u);
                        sums[e] += w[(f * cg + c) * taps + tap] * value;
                    }
                    at += plane;
                }
            }
        }
    }
    for (var e = 0u; e < EACH; e += 1u) {
        if f0 + e < fg {
            y[(n * args.F + g * fg + f0 + e) * places + place] = sums[e];
        }
    }
}
