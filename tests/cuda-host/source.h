// What the stand-in for NVRTC reads in a program's text, and changes in it.
#pragma once
#include <string>

// One line for every kernel, so that the driver knows its arguments: CUDA_HOST_KERNEL(name, most threads).
std::string describe_kernels(const std::string &source);

// `extern __shared__ T name[];` has no counterpart in C++: it becomes a reference to the launch's memory.
std::string with_dynamic_shared(std::string source);

// Where a text's beginning ends that other programs may have as well: behind the last namespace that it closes.
std::size_t prefix_length(const std::string &source);
