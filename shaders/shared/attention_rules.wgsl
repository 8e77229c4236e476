// Which keys a token attends to, and what is done to their scores:
//
//   (default)   causal: key s is seen when s <= pos + t
//   FULL        all S keys
//   PREFIXED    causal, and the first PREFIX keys (arXiv:1910.10683, figure 4)
//   WINDOWED    only the last WINDOW keys, the token's own included; with FULL WINDOW - 1 behind too
//   KV_LENGTHS  only the first kv_lengths[b] keys
//   CAPPED      SOFTCAP tanh(score / SOFTCAP) (arXiv:2408.00118), before all that follows
//   ALIBI       score + slopes[h] (s - pos - t) (arXiv:2108.12409); ABSOLUTE: slopes[h] s
//   MASK        score + mask[b, h, t, s], -1e30 and less hide the key; MASK_SEEN: u32, 0 hides;
//               MASK_HIDDEN: more than 0.99 hides. Keys from MASK_S on are hidden. A stride of 0
//               broadcasts
//
// With PAGED tokens have positions of their own, in `pages`. The kernel declares `step`, `args` and the bindings mask, slopes and kv_lengths.
// Reference: core/src/kernels/attention_rules.rs.

// Below every score; finite, so that differences are.
const LOWEST: f32 = -1e30;
const SOFTCAP: f32 = 1.0;

/// Token `t` of sequence `b`, head `h`.
struct Query {
    b: u32,
    t: u32,
    h: u32,
}

/// Keys first..end.
struct Keys {
    first: u32,
    end: u32,
}

fn position_of(t: u32) -> u32 {
#if PAGED
    return pages[4u * t];
#else
    return step.pos + t;
#endif
}

fn seen_keys(b: u32, t: u32) -> Keys {
    let pos = position_of(t);
    var keys = Keys(0u, args.S);
#if !FULL
    keys.end = min(pos + 1u, args.S);
#endif
#if PREFIXED
    keys.end = min(max(pos + 1u, args.PREFIX), args.S);
#endif
#if WINDOWED
    keys.first = max(pos + 1u, args.WINDOW) - args.WINDOW;
#if FULL
    keys.end = min(pos + args.WINDOW, args.S);
#endif
#endif
#if KV_LENGTHS
    keys.end = min(keys.end, kv_lengths[b]);
#endif
    return keys;
}

/// The score of key `s`, LOWEST when the mask hides it. Only where `seen_keys` has `s`.
fn adjust(x: Query, score: f32, s: u32) -> f32 {
    var y = score;
#if CAPPED
    // The argument is clamped so that nothing overflows.
    y = SOFTCAP - 2.0 * SOFTCAP / (exp(clamp(2.0 * y / SOFTCAP, -40.0, 40.0)) + 1.0);
#endif
#if ALIBI
#if ABSOLUTE
    y += slopes[x.h] * f32(s);
#else
    y += slopes[x.h] * (f32(s) - f32(position_of(x.t)));
#endif
#endif
#if MASK
    if s >= args.MASK_S {
        return LOWEST;
    }
    let m = mask[x.b * args.MASK_B + x.h * args.MASK_H + x.t * args.MASK_T + s];
#if MASK_SEEN
    y = select(LOWEST, y, m != 0u);
#else
#if MASK_HIDDEN
    y = select(y, LOWEST, m > 0.99);
#else
    y = select(LOWEST, y + m, m > LOWEST);
#endif
#endif
#endif
    return y;
}

/// The score of key `s`, LOWEST when it is not seen.
fn seen_score(x: Query, score: f32, s: u32, keys: Keys) -> f32 {
#if WINDOWED
    let seen = s >= keys.first && s < keys.end;
#else
    let seen = s < keys.end;
#endif
#if ADJUSTED
    if !seen {
        return LOWEST;
    }
    return adjust(x, score, s);
#else
    return select(LOWEST, score, seen);
#endif
}
