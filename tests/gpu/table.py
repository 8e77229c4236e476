"""results.json as Markdown."""

WAYS = {"tuned": "CUDA, tuned", "own": "CUDA, own", "generated": "CUDA, generated", "vulkan": "Vulkan", "cpu": "CPU"}


def markdown(results):
    """The whole report."""
    machine, steps = results.get("machine", {}), results["steps"]
    torch = steps.get("pytorch", {})
    copies = {}
    for step in steps.values():
        if step.get("limits"):
            by = WAYS[step["way"]]
            copies[by] = max(copies.get(by, 0), step["limits"]["copy_gb_per_second"])
    if torch.get("copy_gb_per_second"):
        copies["PyTorch"] = torch["copy_gb_per_second"]
    copy, matmul = max(copies.values(), default=None), torch.get("matmul_tflops_per_second")
    lines = [
        f"{machine.get('gpu') or 'No NVIDIA GPU'}, driver {machine.get('driver')}, {machine.get('date')}, commit {machine.get('commit')}"
        + (" (SMOKE: sizes that measure nothing)" if machine.get("smoke") else ""),
        "",
        "Bounds: " + (f"copy {copy:.0f} GB/s, the best of " + ", ".join(f"{n} {c:.0f}" for n, c in copies.items()) if copy else "no copy was measured")
        + "; " + (f"bf16 product {matmul:.0f} TFLOP/s (PyTorch {torch.get('torch')})" if matmul else "the rate of a bf16 product was not measured") + ".",
        "",
    ]
    rows = [(s["shape"], s["type"], WAYS[s["way"]], s.get("results"), s.get("message")) for s in steps.values() if "way" in s]
    for shape in torch.get("shapes", []):
        rows.append((shape["shape"], torch["dtype"], f"PyTorch, {shape['way']}" if "way" in shape else "PyTorch", shape.get("results"), shape.get("error")))
    tests = list(dict.fromkeys(r["test"] for row in rows for r in row[3] or []))
    tests.sort(key=lambda test: (test[:2] != "tg", int(test[2:])))
    lines += ["| model | type | by | " + " | ".join(f"{t}, tok/s" for t in tests) + " |", "|---" * (3 + len(tests)) + "|"]
    order = list(dict.fromkeys(row[0] for row in rows))
    for shape, dtype, by, found, message in sorted(rows, key=lambda row: order.index(row[0])):
        by_test = {r["test"]: r for r in found or []}
        # The bounds are the GPU's.
        cells = [cell(by_test.get(test), *((None, None) if by == "CPU" else (copy, matmul))) for test in tests]
        if not found:
            cells = ["failed: " + str(message).replace("|", "/")] + [""] * (len(tests) - 1)
        lines.append(f"| {shape} | {dtype} | {by} | " + " | ".join(cells) + " |")
    lines += ["", "Percentages: of decode its bytes over the copy, of prefill its operations over the bf16 product.", ""]
    for name, step in steps.items():
        told = [step["message"]] if "message" in step else step.get("lines", [])
        if step["status"] != "ok" or told:
            lines.append(f"- {name}: {step['status']}" + "".join(f"; {line}" for line in told))
    return "\n".join(lines) + "\n"


def cell(result, copy, matmul):
    """Speed, and the share of its bound."""
    if not result:
        return ""
    decode = result["test"].startswith("tg")
    reached, bound = (result["gb_per_second"], copy) if decode else (result["tflops_per_second"], matmul)
    share = f" ({100 * reached / bound:.1f} %)" if bound else f" ({reached:.3g} {'GB/s' if decode else 'TFLOP/s'})"
    return f"{result['median']:.1f}{share}"
