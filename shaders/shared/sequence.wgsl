// The order in which a recurrent kernel walks through a sequence: step s of batch entry n is time
// `time_of(n, s)`. The kernel declares `args` with T, N, YT, YN, Y0, HN and H0.
//
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
