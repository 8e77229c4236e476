// axis_at: index of element i of row t of a tensor (OUTER, C, INNER); rows are in the order of the
// other axes. The kernel declares args.C and args.INNER.

fn axis_at(t: u32, i: u32) -> u32 {
    return (t / args.INNER * args.C + i) * args.INNER + t % args.INNER;
}
