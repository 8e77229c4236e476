// Where halves.cu leaves activations for tiles.cu: scales of all tokens, then rows of f16 with zeros up to whole steps.

// Elements of a step of tiles.cu, and pieces of 8 in a row.
constexpr u32 STEP = 64, PIECES = (K + STEP - 1) / STEP * (STEP / 8);

FN float *scales(void *workspace) { return (float *)workspace; }
FN U4 *halves(void *workspace, u32 tokens) { return (U4 *)workspace + (tokens + 3) / 4; }
