// draw: which random word an element gets. The kernel declares args with FIRST, WIDTH, STRIDE,
// STREAM, SEED_LOW and SEED_HIGH (core/src/kernels/philox.rs, Draw).

#import philox

fn number_of(i: u32) -> u32 {
    return args.FIRST + i / args.WIDTH * args.STRIDE + i % args.WIDTH;
}

fn word(n: u32) -> u32 {
    return random_word(n, args.STREAM, vec2<u32>(args.SEED_LOW, args.SEED_HIGH));
}
