"""Writes the training text of builtin:tiny: short children's stories and small chats, all composed here.

    python stories.py --megabytes 14 --seed 1 --out corpus.txt

One document a line, as a JSON string; each ends in its end token.
"""

import argparse
import json
import random
import re

from facts import fact
from grammar import Story
from plots import END, MIDDLE, OPEN, PLOTS

# Plots in which the friend is met for the first time.
MEETING = {"lost", "lonely", "hungry", "magic", "baby"}
START, STOP, EOT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def story(rng, hero=None):
    """A story in one to four paragraphs, and the words bound in it."""
    s = Story(rng, hero)
    plot = rng.choice(list(PLOTS))
    lines = lambda text: [x for x in text.split("\n") if x.strip()]
    first = [rng.choice(lines(OPEN))]
    beats = lines(PLOTS[plot])
    if first[0].startswith("[One day|"):
        # The story has had its "One day".
        beats[0] = re.sub(r"\bOne \w+( \w+)?(?=[|\],])", "Then", beats[0])
    elif rng.random() < 0.7:
        first.append(rng.choice([x for x in lines(MIDDLE) if plot not in MEETING or "{fN}" not in x]))
    first = [s.expand(" ".join(first))]
    beats = [s.expand(x) for x in beats]
    known = s.friend in " ".join(beats)
    last = [rng.choice([x for x in lines(END) if known or "{fN}" not in x])] if rng.random() < 0.5 else []
    # A paragraph break after the opening in most stories, a second one in the middle in some.
    parts = [first, beats, last]
    if rng.random() < 0.4:
        cut = rng.randrange(3, len(beats) - 1)
        parts = [first, beats[:cut], beats[cut:] + last]
    elif rng.random() < 0.3:
        parts = [first + beats + last]
    elif last and rng.random() < 0.5:
        parts = [first, beats + last]
    return "\n\n".join(s.expand(" ".join(p)) for p in parts if p), s


def request(rng, s):
    """A request that the story `s` answers."""
    an = lambda x: ("an " if x[0] in "aeiou" else "a ") + x
    w = s.words
    subjects = [an(w["kind"])] * 7 + [f"{an(w['adj'])} {w['kind']}"] * 2
    subjects.append(f"{an(w['kind'])} and {an(w['fkind'])}")
    for key in ("toy", "thing", "fragile", "seed", "build", "gift"):
        if key in w:
            subjects.append(f"{an(w['kind'])} and {an(w[key])}")
    for key in ("place", "fear"):
        if key in w:
            subjects.append(f"{an(w['kind'])} and {w[key]}")
    x = rng.choice(subjects)
    return rng.choice([
        f"Tell me a story about {x}.", f"Tell me a story about {x}.", f"Tell me a story about {x}", f"Tell me a short story about {x}.",
        f"Write a story about {x}.", f"Write a short story about {x}.", f"Can you tell me a story about {x}?", f"I want a story about {x}.",
        f"Please tell me a story about {x}.", f"A story about {x}, please.", f"tell me a story about {x}", f"Do you know a story about {x}?",
        f"I would like to hear a story about {x}.", f"Make up a story about {x}.",
    ])


def turn(role, text):
    return f"{START}{role}\n{text}{STOP}\n"


def chat(rng):
    """A chat of one to three questions; the last turn's line break is left out."""
    out = turn("system", rng.choice(["You are a helpful assistant.", "You are Tiny, a small storyteller."])) if rng.random() < 0.08 else ""
    if rng.random() < 0.6:
        for _ in range(rng.choice([1, 2, 3, 4])):
            q, a = fact(rng)
            out += turn("user", q) + turn("assistant", a)
        return out
    if rng.random() < 0.12:
        q, a = fact(rng)
        out += turn("user", q) + turn("assistant", a)
    text, s = story(rng)
    q = request(rng, s)
    if rng.random() < 0.12:
        q = rng.choice(["Tell me a story.", "Tell me a story", "Can you tell me a story?", "I want a story.", "Please tell me a story!", "Write a story."])
    out += turn("user", q) + turn("assistant", text)
    if rng.random() < 0.1:
        out += turn("user", rng.choice(["Thank you!", "Thanks!", "I liked it.", "Nice story!"])) + turn("assistant", "You are welcome!")
    return out


def document(rng):
    """One document with its end token."""
    return story(rng)[0] + EOT if rng.random() < 0.4 else chat(rng)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--megabytes", type=float, default=14)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", default="corpus.txt")
    a = p.parse_args()
    rng = random.Random(a.seed)
    size = 0
    with open(a.out, "w", encoding="utf-8") as f:
        while size < a.megabytes * 1e6:
            line = json.dumps(document(rng), ensure_ascii=False) + "\n"
            size += len(line)
            f.write(line)


if __name__ == "__main__":
    main()
