// expert_positions: the place of each choice in its expert's queue, and whether the expert has room for it
//
// experts    (N,)  u32  read   the expert of each choice; one that is not below E is left out
// chosen     (N,)  u32  read   CHOSEN: 0 where a choice is not made
// ahead      (E,)  u32  read   AHEAD: how many stand in each queue before; KEPT_AHEAD: at most CAPACITY do
// priority   (N,)  f32  read   PRIORITY: the queue's order, largest first; else the order of choices
// positions  (N,)  u32  write  made choices of this expert up to this one, and those ahead, less 1
// kept       (N,)  u32  write  1 where the position is below CAPACITY
// assigned   (E,)  u32  write  choices of each expert
// dropped    (E,)  u32  write  those of them for which there is no room
//
// Dispatch: an invocation for each choice and each expert; each looks at all choices, so that none waits.
// Source: arXiv:2101.03961 section 2.2, 2006.16668 algorithm 1; PRIORITY is Megatron-LM's drop policy `probs`.
// Reference: core/src/kernels/expert_positions.rs.

const WG: u32 = 64u;

struct Args {
    N: u32,
    E: u32,
    CAPACITY: u32,
}

@group(0) @binding(0) var<storage, read> experts: array<u32>;
#if CHOSEN
@group(0) @binding(1) var<storage, read> chosen: array<u32>;
#endif
#if AHEAD
@group(0) @binding(2) var<storage, read> ahead: array<u32>;
#endif
#if PRIORITY
@group(0) @binding(3) var<storage, read> priority: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> kept: array<u32>;
@group(0) @binding(6) var<storage, read_write> assigned: array<u32>;
@group(0) @binding(7) var<storage, read_write> dropped: array<u32>;
@group(0) @binding(8) var<uniform> args: Args;

fn is_made(i: u32, e: u32) -> bool {
#if CHOSEN
    if chosen[i] == 0u {
        return false;
    }
#endif
    return experts[i] == e;
}

fn start(e: u32) -> u32 {
#if AHEAD
#if KEPT_AHEAD
    return min(ahead[e], args.CAPACITY);
#else
    return ahead[e];
#endif
#else
    return 0u;
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < args.N {
        let e = experts[i];
        let made = e < args.E && is_made(i, e);
        // 0xFFFFFFFF is -1: nobody is there yet.
        var position = 0xFFFFFFFFu;
        if e < args.E {
            position += start(e) + select(0u, 1u, made);
#if PRIORITY
            let own = priority[i];
            for (var j = 0u; j < args.N; j += 1u) {
                let before = priority[j] > own || (priority[j] == own && j < i);
                position += select(0u, 1u, before && is_made(j, e));
            }
#else
            for (var j = 0u; j < i; j += 1u) {
                position += select(0u, 1u, is_made(j, e));
            }
#endif
        }
        positions[i] = position;
        kept[i] = select(0u, 1u, made && position < args.CAPACITY);
    }
    if i < args.E {
        var count = 0u;
        for (var j = 0u; j < args.N; j += 1u) {
            count += select(0u, 1u, is_made(j, i));
        }
        assigned[i] = count;
        dropped[i] = count - min(count, args.CAPACITY - min(start(i), args.CAPACITY));
    }
}
