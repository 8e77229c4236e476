// ONNX models as bytes, for onnxruntime-web: the few fields of onnx.proto3 that one graph of f32 needs.

const FLOAT = 1;
const INT = 2;

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}

/** A field: numbers as varints, text and bytes with their length, lists as repeated fields. */
function field(number, value) {
  if (Array.isArray(value)) return value.flatMap((one) => field(number, one));
  if (typeof value === "number") return [Uint8Array.from([...varint(number * 8), ...varint(value)])];
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  return [Uint8Array.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes];
}

function message(fields) {
  const parts = Object.entries(fields).flatMap(([number, value]) => field(Number(number), value));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A float (in bytes of its own, wire type 5) or an integer. */
function attribute([name, value]) {
  if (Number.isInteger(value)) return message({ 1: name, 3: value, 20: INT });
  const float = new Uint8Array([2 * 8 + 5, ...new Uint8Array(Float32Array.of(value).buffer)]);
  const [head, tail] = [message({ 1: name }), message({ 20: FLOAT })];
  return Uint8Array.from([...head, ...float, ...tail]);
}

function valueInfo([name, shape]) {
  const dims = shape.map((length) => message({ 1: length }));
  return message({ 1: name, 2: message({ 1: message({ 1: FLOAT, 2: message({ 1: dims }) }) }) });
}

/**
 * A model of opset `opset` as bytes. `inputs` and `outputs` are `{ name: shape }`, `weights` `{ name: { shape, data } }`, `nodes`
 * `[type, inputs, outputs, attributes]`.
 */
export function model({ opset, inputs, outputs, weights = {}, nodes }) {
  const node = ([type, from, to, attributes = {}]) =>
    message({ 1: from, 2: to, 4: type, 5: Object.entries(attributes).map(attribute) });
  const tensor = ([name, { shape, data }]) =>
    message({ 1: shape, 2: FLOAT, 8: name, 9: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
  const graph = message({
    1: nodes.map(node),
    2: "bench",
    5: Object.entries(weights).map(tensor),
    11: Object.entries(inputs).map(valueInfo),
    12: Object.entries(outputs).map(valueInfo),
  });
  return message({ 1: 10, 7: graph, 8: message({ 1: "", 2: opset }) });
}
