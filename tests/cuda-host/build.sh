#!/bin/sh
# Builds the two libraries into a folder: tests/cuda-host/build.sh OUTDIR
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
flags="-std=c++17 -O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -static-libstdc++ -static-libgcc -pthread"
g++ $flags -Wl,-z,nodelete -Wl,-soname,libcuda.so.1 exec.cpp device.cpp memory.cpp stream.cpp module.cpp -o "$out/libcuda.so.1" -ldl
g++ $flags -Wl,-soname,libnvrtc.so.13 nvrtc.cpp -o "$out/libnvrtc.so.13"
