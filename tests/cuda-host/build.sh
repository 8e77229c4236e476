#!/bin/sh
# Builds the four libraries and their tests into a folder, unless they are newer than their sources; with `test`, runs it:
# tests/cuda-host/build.sh OUTDIR [test]
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"

# newer FILE SOURCE…: whether FILE is there and no source, nor this script, is newer.
newer() {
    file=$1
    shift
    [ -f "$file" ] && [ -z "$(find "$@" build.sh -newer "$file")" ]
}
# Other processes may use the old file: the new one takes its place whole.
build() {
    file=$1
    shift
    g++ -std=c++17 -O2 -Wall -Wextra "$@" -o "$file.new"
    mv "$file.new" "$file"
}
library="-fPIC -shared -fvisibility=hidden -static-libstdc++ -static-libgcc -pthread"

newer "$out/libcuda.so.1" abi.h exec.h exec.cpp runner.h runner.cpp driver.h device.cpp memory.cpp stream.cpp module.cpp ||
    build "$out/libcuda.so.1" $library -Wl,-z,nodelete -Wl,-soname,libcuda.so.1 exec.cpp runner.cpp device.cpp memory.cpp stream.cpp module.cpp -ldl
newer "$out/libnvrtc.so.13" abi.h host.h nvrtc.cpp source.h source.cpp ||
    build "$out/libnvrtc.so.13" $library -Wl,-soname,libnvrtc.so.13 nvrtc.cpp source.cpp
# It calls the driver that the program has loaded.
newer "$out/libnccl.so.2" nccl.cpp || build "$out/libnccl.so.2" $library -Wl,-soname,libnccl.so.2 nccl.cpp "$out/libcuda.so.1"
newer "$out/libcublasLt.so.13" cublaslt.cpp ||
    build "$out/libcublasLt.so.13" $library -Wl,-soname,libcublasLt.so.13 cublaslt.cpp "$out/libcuda.so.1"
newer "$out/cublaslt-test" cublaslt_test.cpp || build "$out/cublaslt-test" cublaslt_test.cpp -ldl
newer "$out/nccl-test" nccl_test.cpp || build "$out/nccl-test" nccl_test.cpp -ldl
newer "$out/test" test.cpp || build "$out/test" test.cpp -ldl

if [ "${2-}" = test ]; then "$out/test" "$out" && "$out/nccl-test" "$out" && "$out/cublaslt-test" "$out"; fi
