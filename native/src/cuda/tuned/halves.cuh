// Where halves.cu leaves activations for tiles.cu and cuBLASLt: scales of all tokens, then rows of 16-bit floats with zeros up
// to whole steps. What is behind them begins at 256 bytes too: sums of cuBLASLt's (finish.cu), rows of a multiple of 64.

// Elements of a step of tiles.cu, and pieces of 8 in a row.
constexpr u32 STEP = 64, PIECES = (K + STEP - 1) / STEP * (STEP / 8);

FN float *scales(void *workspace) { return (float *)workspace; }
FN U4 *halves(void *workspace, u32 tokens) { return (U4 *)workspace + (tokens + 63) / 64 * 16; }
FN float *sums(void *workspace, u32 tokens) { return (float *)(halves(workspace, tokens) + ((u64)tokens * PIECES + 15) / 16 * 16); }
