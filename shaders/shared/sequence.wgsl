// How a recurrent kernel walks through a sequence: step s of batch entry n is time `time_of(n, s)`.
// The kernel declares WG, `args` with T, N, YT, YN, Y0, HN and H0, and what a step and the end do:
// `step(n, s, first, stride)`, `finish(n, first, stride)` for the states first, first + stride, ...
//
// One workgroup an entry, with SERIAL one invocation.
// REVERSE walks back from the last time; LENGTHS: entry n has lengths[n] of the T times.

fn steps_of(n: u32) -> u32 {
#if LENGTHS
    return min(lengths[n], args.T);
#else
    return args.T;
#endif
}

fn time_of(n: u32, s: u32) -> u32 {
#if REVERSE
    let steps = steps_of(n);
    return select(s, steps - 1u - s, s < steps);
#else
    return s;
#endif
}

// Where y has the state after step s of entry n.
fn state_at(n: u32, s: u32) -> u32 {
    return args.Y0 + time_of(n, s) * args.YT + n * args.YN;
}

// Where h and c have entry n.
fn kept_at(n: u32) -> u32 {
    return args.H0 + n * args.HN;
}

#if SERIAL
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = (group.x + group.y * groups.x) * WG + lane;
    if n >= args.N {
        return;
    }
    for (var s = 0u; s < args.T; s += 1u) {
        step(n, s, 0u, 1u);
    }
    finish(n, 0u, 1u);
}
#else
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = group.x + group.y * groups.x;
    if n >= args.N {
        return;
    }
    for (var s = 0u; s < args.T; s += 1u) {
        step(n, s, lane, WG);
        storageBarrier();
    }
    finish(n, lane, WG);
}
#endif
