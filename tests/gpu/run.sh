#!/bin/sh
# Checks and measures the CUDA backend on this machine, from the folder that pack.sh made:
# run.sh [OUT [STEP…]]
# Steps are named by their beginnings (`conformance`, `text`, `"bench llama3-8b"`, `pytorch`), all without. Writes OUT/results.json, to
# which a later call adds, OUT/table.md and the steps' output; OUT is ./gpu-results if not given. SMOKE=1 takes tiny sizes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# NVRTC of this folder, or of Python's packages (PyTorch's), and their cuBLASLt. Not beside what stands in for a driver (tests/cuda-host), which brings
# its own.
if [ -z "${SHARDLIGHT_NVRTC-}" ] && [ -z "${SHARDLIGHT_REAL_NVRTC-}" ]; then
    packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for folder in "$here" "$packages/nvidia/cu13/lib"; do
        [ -f "$folder/libnvrtc.so.13" ] && export SHARDLIGHT_NVRTC="$folder/libnvrtc.so.13" && break
    done
    blas="$packages/nvidia/cu13/lib/libcublasLt.so.13"
    if [ -z "${SHARDLIGHT_CUBLASLT-}" ] && [ -f "$blas" ]; then export SHARDLIGHT_CUBLASLT="$blas"; fi
fi
export SHARDLIGHT_BIN="${SHARDLIGHT_BIN:-$here/shardlight}" SHARDLIGHT_REQUIRE_CUDA=1
exec python3 "$here/run.py" "$@"
