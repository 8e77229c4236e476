"""Collects the ONNX project's backend node tests of the operators we have.

    pip install onnx==1.22.0 numpy && python onnx_cases.py ../data/onnx

Writes node.json (a list of cases: name, op, attributes, names of inputs and outputs, the tolerances)
and node.safetensors (their tensors, `CASE/in0`, `CASE/out0`). Cases whose name ends in `_expanded` are
the same data for a graph of primitive operators and are left out, as are models of several nodes.
Integers of 2 and 4 bits are stored as int8. A case with another element type keeps its line, with that type
as `strange`, and has no tensors.
Origin: https://github.com/onnx/onnx, onnx/backend/test/data/node, Apache-2.0, from the PyPI package onnx.
"""

import json
import os
import struct
import sys

import numpy
import onnx
from onnx import numpy_helper

OPERATORS = """
ArgMax ArgMin Attention Conv DequantizeLinear Dropout Elu Flatten GRU Gelu Gemm GroupNormalization
HardSwish Hardmax InstanceNormalization LSTM LayerNormalization LeakyRelu LogSoftmax MatMul MatMulInteger MaxPool NegativeLogLikelihoodLoss OneHot
RMSNormalization Relu RotaryEmbedding Sigmoid Softmax SoftmaxCrossEntropyLoss Softplus Swish Tanh TopK
""".split()

TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}


def attribute(a):
    value = onnx.helper.get_attribute_value(a)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, tuple)):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    if isinstance(value, onnx.TensorProto):
        return None
    return value


def tensors(folder, kind, names):
    """Arrays of the test's files, by place; an omitted optional has an empty name and no file."""
    found, at = {}, 0
    for place, name in enumerate(names):
        if not name:
            continue
        path = os.path.join(folder, f"{kind}_{at}.pb")
        at += 1
        if not os.path.exists(path):
            continue
        proto = onnx.TensorProto()
        with open(path, "rb") as file:
            proto.ParseFromString(file.read())
        found[place] = proto
    return found


def main(out):
    root = os.path.join(os.path.dirname(onnx.__file__), "backend/test/data/node")
    cases, chunks, header, offset = [], [], {}, 0
    for name in sorted(os.listdir(root)):
        model_path = os.path.join(root, name, "model.onnx")
        if name.endswith("_expanded") or "_expanded_" in name or not os.path.exists(model_path):
            continue
        model = onnx.load(model_path)
        if len(model.graph.node) != 1 or model.graph.node[0].op_type not in OPERATORS:
            continue
        node = model.graph.node[0]
        case = {
            "name": name.removeprefix("test_"),
            "op": node.op_type,
            "opset": model.opset_import[0].version,
            "attributes": {a.name: attribute(a) for a in node.attribute},
            "inputs": list(node.input),
            "outputs": list(node.output),
        }
        strange = None
        rows = []
        # Files follow the graph's inputs, whose order is the node's.
        for kind, names in (("input", node.input), ("output", node.output)):
            for place, proto in tensors(os.path.join(root, name, "test_data_set_0"), kind, names).items():
                element = onnx.TensorProto.DataType.Name(proto.data_type).lower()
                array = numpy_helper.to_array(proto)
                if element in ("int4", "uint4", "int2", "uint2"):
                    array = array.astype("int8")
                dtype = TYPES.get(str(array.dtype))
                if dtype is None:
                    strange = element
                    continue
                rows.append((f"{case['name']}/{'in' if kind == 'input' else 'out'}{place}", dtype, array))
        if strange:
            case["strange"] = strange
        else:
            for key, dtype, array in rows:
                data = numpy.ascontiguousarray(array).tobytes()
                header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
                chunks.append(data)
                offset += len(data)
        cases.append(case)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "node.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    with open(os.path.join(out, "node.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"{len(cases)} cases, {len(header)} tensors, {offset} bytes; onnx {onnx.__version__}")


if __name__ == "__main__":
    main(sys.argv[1])
