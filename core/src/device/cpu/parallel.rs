//! Loops over threads: rayon natively, plain loops in wasm.

/// Below this many elements a loop stays on one thread: waking the others costs more.
const SMALL: usize = 4096;

/// Threads that loops are spread over.
pub fn threads() -> usize {
    #[cfg(not(target_arch = "wasm32"))]
    {
        rayon::current_num_threads()
    }
    #[cfg(target_arch = "wasm32")]
    {
        1
    }
}

/// Calls `f` on a thread of the pool: loops inside then start without waking one first, which
/// costs more than most kernels.
pub fn run<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    #[cfg(not(target_arch = "wasm32"))]
    if threads() > 1 {
        return rayon::scope(|_| f());
    }
    f()
}

/// Calls `f(row, elements)` for the first `rows` rows of `data`, each `len` long.
pub fn for_each_row<T: Send>(
    data: &mut [T],
    len: usize,
    rows: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let data = &mut data[..rows * len];
    if data.len() < SMALL {
        data.chunks_mut(len).enumerate().for_each(|(i, c)| f(i, c));
    } else {
        for_each_chunk(data, len, f);
    }
}

/// Calls `f(start, elements)` for parts of `data`, `start` being the index of a part's first element.
pub fn for_each_part<T: Send>(data: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    if data.len() <= SMALL {
        f(0, data);
    } else {
        for_each_chunk(data, SMALL, |i, part| f(i * SMALL, part));
    }
}

/// Calls `f(chunk number, elements)` for chunks of `len` elements, on all threads.
pub fn for_each_chunk<T: Send>(data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        data.par_chunks_mut(len)
            .enumerate()
            .for_each(|(i, c)| f(i, c));
    }
    #[cfg(target_arch = "wasm32")]
    data.chunks_mut(len).enumerate().for_each(|(i, c)| f(i, c));
}

/// Calls `f(number, part)` for all parts, on all threads; a single one on this thread.
pub fn for_each<T: Send>(parts: Vec<T>, f: impl Fn(usize, T) + Sync + Send) {
    #[cfg(not(target_arch = "wasm32"))]
    if parts.len() > 1 {
        use rayon::prelude::*;
        let parts = parts.into_par_iter().with_max_len(1).enumerate();
        return parts.for_each(|(i, part)| f(i, part));
    }
    for (i, part) in parts.into_iter().enumerate() {
        f(i, part);
    }
}
