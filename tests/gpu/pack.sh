#!/bin/sh
# Packs what tests/gpu/run.sh needs on a machine with a GPU but without Rust and network into a folder:
# tests/gpu/pack.sh FOLDER [release|dev]
# The profile is the program's; tests are always built with `dev`. WITHOUT="nvrtc model" leaves out these two, which are
# most of the bytes: where CUDA's toolkit is there, name its library in SHARDLIGHT_NVRTC; without the model its shape is used.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
profile=${2-release}
cd "$(dirname "$0")/../.."

# executables ARGUMENT…: name and path of what cargo builds.
executables() {
    cargo "$@" --message-format json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])'
}
{
    executables build --workspace --bin shardlight --profile "$profile"
    executables test --workspace --no-run --test cuda --test kernels
} >"$folder/built"
for name in shardlight cuda kernels; do
    path=$(sed -n "s/^$name //p" "$folder/built")
    cp "$path" "$folder/$name"
done
rm "$folder/built"
git rev-parse HEAD >"$folder/commit"
cp tests/gpu/run.sh tests/gpu/run.py tests/gpu/table.py tests/gpu/pytorch.py "$folder/"

without() { case " ${WITHOUT-} " in *" $1 "*) true ;; *) false ;; esac; }
if ! without nvrtc; then
    tools=${SHARDLIGHT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/shardlight/tools}
    nvrtc=$(find "$tools/nvrtc" -name libnvrtc.so.13)
    [ -n "$nvrtc" ] || { echo "no libnvrtc.so.13 in $tools/nvrtc; cargo xtest tools installs it" >&2; exit 1; }
    cp "$nvrtc" "$(dirname "$nvrtc")/libnvrtc-builtins.so.13.0" "$folder/"
fi
if ! without model; then
    cp "$("$folder/shardlight" list --json | python3 -c '
import json, sys
[model] = [m for m in json.load(sys.stdin)["models"] if m["name"] == "smollm2:135m"]
if model["state"] not in ["cached", "unchecked"]:
    sys.exit("SmolLM2 is not in the cache; run shardlight pull smollm2:135m")
print(model["path"])')" "$folder/smollm2.gguf"
fi
du -sh "$folder"
