// max_pool: y[r, o] = max_k x[r, o S + k D - P], the padding left out
//
// x        (R, ID, IH, IW)  f32  read
// y        (R, OD, OH, OW)  f32  write
// indices  (R, OD, OH, OW)  u32  write, with INDICES: where the largest element is, the first of
//                                equal ones: its number in row r; with COLUMN_MAJOR the width
//                                counts slowest; with WHOLE counted from the first row on
//
// One to three spatial dimensions: the missing ones have size 1. A window that sees padding only
// gives the lowest finite number. Dispatch: an invocation has one window; no barrier.
// Source: PyTorch, torch.nn.MaxPool2d; ONNX, MaxPool. Reference: core/src/kernels/max_pool.rs.

const WG: u32 = 64u;
const LOWEST: f32 = -3.4028234e38;

struct Args {
    R: u32,
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
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
#if INDICES
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
#endif
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    let places = args.OD * args.OH * args.OW;
    let row = i / places;
    if row >= args.R {
        return;
    }
    let ow = i % args.OW * args.SW;
    let oh = i / args.OW % args.OH * args.SH;
    let od = i / args.OW / args.OH % args.OD * args.SD;
    let plane = args.ID * args.IH * args.IW;
    var best = LOWEST;
    var found = false;
    var at = vec3<u32>();
    // Places in the padding wrap around to numbers that are too large.
    for (var kd = 0u; kd < args.KD; kd += 1u) {
        let d = od + kd * args.DD - args.PD;
        for (var kh = 0u; kh < args.KH; kh += 1u) {
            let h = oh + kh * args.DH - args.PH;
            for (var kw = 0u; kw < args.KW; kw += 1u) {
                let v = ow + kw * args.DW - args.PW;
                if d < args.ID && h < args.IH && v < args.IW {
                    let value = x[row * plane + (d * args.IH + h) * args.IW + v];
                    if !found || value > best {
                        best = value;
                        found = true;
                        at = vec3<u32>(d, h, v);
                    }
                }
            }
        }
    }
    y[i] = best;
#if INDICES
#if COLUMN_MAJOR
    var index = (at.z * args.IH + at.y) * args.ID + at.x;
#else
    var index = (at.x * args.IH + at.y) * args.IW + at.z;
#endif
#if WHOLE
    index += row * plane;
#endif
    indices[i] = index;
#endif
}
