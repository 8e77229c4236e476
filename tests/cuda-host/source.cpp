#include "source.h"

#include <algorithm>
#include <cctype>

// The program's text without comments, literals and line ends, at the same places.
static std::string blank(const std::string &text) {
    std::string out = text;
    auto wipe = [&](std::size_t from, std::size_t to) {
        for (std::size_t i = from; i < to && i < out.size(); i++)
            if (out[i] != '\n') out[i] = ' ';
    };
    for (std::size_t i = 0; i < text.size();) {
        std::size_t end = i + 1;
        if (text.compare(i, 2, "//") == 0) {
            end = std::min(text.find('\n', i), text.size());
            wipe(i, end);
        } else if (text.compare(i, 2, "/*") == 0) {
            end = std::min(text.find("*/", i + 2), text.size() - 2) + 2;
            wipe(i, end);
        } else if (text[i] == '"' || (text[i] == '\'' && (i == 0 || !isalnum((unsigned char)text[i - 1])))) {
            while (end < text.size() && text[end] != text[i] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
            wipe(i + 1, end++);
        }
        i = end;
    }
    return out;
}

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

std::string describe_kernels(const std::string &source) {
    std::string text = blank(source), lines;
    const std::string word = "__global__";
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        if ((at > 0 && is_word(text[at - 1])) || is_word(text[at + word.size()])) continue;
        std::string name, bounds = "0";
        // Words up to the first parenthesis whose word is no attribute.
        for (std::size_t i = at + word.size(); i < text.size() && text[i] != ';' && text[i] != '{' && text[i] != '#';) {
            if (is_word(text[i])) {
                std::size_t end = i;
                while (end < text.size() && is_word(text[end])) end++;
                name = text.substr(i, end - i);
                i = end;
            } else if (text[i] == '(') {
                bool attribute = name == "__launch_bounds__" || name == "__attribute__" || name == "__align__";
                if (!attribute) {
                    lines += "\nCUDA_HOST_KERNEL(" + name + ", " + bounds + ")";
                    break;
                }
                std::size_t end = i + 1, comma = 0;
                for (int depth = 1; depth != 0 && end < text.size(); end++) {
                    depth += (text[end] == '(') - (text[end] == ')');
                    if (depth == 1 && text[end] == ',' && comma == 0) comma = end;
                }
                if (name == "__launch_bounds__") bounds = text.substr(i + 1, (comma != 0 ? comma : end - 1) - i - 1);
                i = end;
            } else {
                i++;
            }
        }
    }
    return lines;
}

std::string with_dynamic_shared(std::string source) {
    const std::string word = "__shared__";
    std::string text = blank(source);
    for (std::size_t at = text.rfind("extern"); at != std::string::npos && at > 0; at = text.rfind("extern", at - 1)) {
        std::size_t shared = text.find_first_not_of(" \n\t", at + 6), end = text.find(';', at);
        if (shared == std::string::npos || text.compare(shared, word.size(), word) != 0 || end == std::string::npos) continue;
        std::size_t bracket = text.rfind('[', end), last = text.find_last_not_of(" ", bracket - 1), first = last;
        while (is_word(text[first - 1])) first--;
        std::string type = source.substr(shared + word.size(), first - shared - word.size()), name = source.substr(first, last + 1 - first);
        std::size_t align = type.find("__align__");
        if (align != std::string::npos) type.erase(align, type.find(')', align) + 1 - align);
        source.replace(at, end - at, "typedef " + type + " cuda_host_" + name + "[1 << 18]; cuda_host_" + name + " &" + name +
                                         " = *(cuda_host_" + name + " *)::cuda_host::self()->dynamic_shared");
    }
    return source;
}

std::size_t prefix_length(const std::string &source) {
    std::size_t last = source.rfind("\n}  // namespace "), end = last == std::string::npos ? last : source.find('\n', last + 1);
    return end == std::string::npos || end < 4096 ? 0 : end + 1;
}
