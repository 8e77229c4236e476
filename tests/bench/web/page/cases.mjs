// The operators that are compared: what ours is called with, and the same as an ONNX graph.

/** Numbers like those of a trained layer: uniform, the same in every run. */
function random(shape, seed, scale) {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  let state = seed;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = (state / 2 ** 31 - 1) * scale;
  }
  return { shape, data };
}

function transposed({ shape: [rows, columns], data }, first, end) {
  const out = new Float32Array((end - first) * columns);
  const width = end - first;
  for (let r = first; r < end; r++) for (let c = 0; c < columns; c++) out[c * width + r - first] = data[r * columns + c];
  return { shape: [columns, width], data: out };
}

function matmul(m, k, n) {
  const [a, b] = [random([m, k], 1, 1), random([k, n], 2, k ** -0.5)];
  const nodes = [["MatMul", ["a", "b"], ["y"]]];
  return {
    ours: ["matmul", { a, b }, {}], feeds: { a }, output: [m, n],
    graph: { opset: 17, weights: { b }, nodes }, flops: 2 * m * k * n,
  };
}

function softmax(rows, columns) {
  const x = random([rows, columns], 3, 4);
  const nodes = [["Softmax", ["x"], ["y"], { axis: 1 }]];
  return { ours: ["softmax", { x }, {}], feeds: { x }, output: [rows, columns], graph: { opset: 17, nodes } };
}

function norm(op, type, opset, rows, columns) {
  const x = random([rows, columns], 4, 2);
  const weight = random([columns], 5, 1);
  const bias = random([columns], 6, 1);
  const layer = op === "layer_norm";
  const weights = layer ? { weight, bias } : { weight };
  const nodes = [[type, ["x", ...Object.keys(weights)], ["y"], { axis: 1, epsilon: 1e-5 }]];
  return {
    ours: [op, { x, ...weights }, { eps: 1e-5 }], feeds: { x }, output: [rows, columns],
    graph: { opset, weights, nodes },
  };
}

/** silu(x gate) * (x up), then down: the weights of gate and up apart, as exporters write them. */
function gatedMlp(tokens, channels, hidden) {
  const x = random([tokens, channels], 7, 1);
  const fc1 = random([2 * hidden, channels], 8, channels ** -0.5);
  const fc2 = random([channels, hidden], 9, hidden ** -0.5);
  const settings = { activation: "silu", bias1: false, bias2: false, hidden_features: hidden, multiple_of: 1 };
  const weights = {
    up: transposed(fc1, 0, hidden),
    gate: transposed(fc1, hidden, 2 * hidden),
    down: transposed(fc2, 0, channels),
  };
  const nodes = [
    ["MatMul", ["x", "gate"], ["g"]],
    ["MatMul", ["x", "up"], ["u"]],
    ["Sigmoid", ["g"], ["s"]],
    ["Mul", ["g", "s"], ["silu"]],
    ["Mul", ["silu", "u"], ["h"]],
    ["MatMul", ["h", "down"], ["y"]],
  ];
  return {
    ours: ["gated_mlp", { x, "fc1.weight": fc1, "fc2.weight": fc2 }, settings],
    feeds: { x }, output: [tokens, channels], graph: { opset: 17, weights, nodes }, flops: 6 * tokens * channels * hidden,
  };
}

function of(op, sizes, goal, make) {
  return { title: `${op} ${sizes.join(" x ")}`, goal, make: () => make(...sizes) };
}

const rms = (...sizes) => norm("rms_norm", "RMSNormalization", 23, ...sizes);
const layer = (...sizes) => norm("layer_norm", "LayerNormalization", 17, ...sizes);

/** All of them with the ratio that is the goal, at the sizes of the benchmark or at small ones. */
export const CASES = {
  full: [
    of("matmul", [512, 2048, 2048], 2, matmul),
    of("gated_mlp", [1, 576, 1536], 2, gatedMlp),
    of("gated_mlp", [128, 576, 1536], 2, gatedMlp),
    of("softmax", [512, 2048], 2, softmax),
    of("rms_norm", [512, 2048], 2, rms),
    of("layer_norm", [512, 2048], null, layer),
  ],
  small: [
    of("matmul", [24, 64, 40], null, matmul),
    of("gated_mlp", [1, 64, 96], null, gatedMlp),
    of("gated_mlp", [5, 64, 96], null, gatedMlp),
    of("softmax", [6, 129], null, softmax),
    of("rms_norm", [6, 128], null, rms),
    of("layer_norm", [6, 128], null, layer),
  ],
};
