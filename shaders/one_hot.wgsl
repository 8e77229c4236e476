// one_hot: y[.., i, ..] = ON where i is the id of the row, else OFF
//
// ids  (OUTER, INNER)     u32  read   -1 to -C (as u32) count from the end; others give OFF only
// y    (OUTER, C, INNER)  f32  write
//
// Dispatch: each workgroup does EACH * WG elements, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/one_hot.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    N: u32,
    C: u32,
    INNER: u32,
    ON: f32,
    OFF: f32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * (EACH * WG) + lane;
    for (var j = 0u; j < EACH; j += 1u) {
        let i = first + j * WG;
        if i < args.N {
            let id = ids[i / (args.C * args.INNER) * args.INNER + i % args.INNER];
            let place = select(id, id + args.C, id >= 0x80000000u);
            y[i] = select(args.OFF, args.ON, i / args.INNER % args.C == place);
        }
    }
}
