"""Short exercises in copying: kinds and things said once and needed again.

Long stories hold few words that only the words before can tell, so a small model learns late to look back. These documents are dense in
such words; training mixes in many of them at first and few at the end.

    python drill.py --megabytes 4 --seed 3 --out drill.txt
"""

import argparse
import json
import random

from grammar import ADJECTIVES, ANIMALS, COLORS, FOODS, FRUITS, GIFTS, MORE, PEOPLE, SMALL_THINGS, TOYS, Story
from stories import EOT, turn

KINDS = ANIMALS + MORE + sorted(set(PEOPLE))
WORDS = sorted(set(ANIMALS + MORE + PEOPLE + COLORS + FOODS + FRUITS + GIFTS + SMALL_THINGS + TOYS + ADJECTIVES + [
    "house", "tree", "sun", "moon", "star", "rain", "snow", "wind", "river", "hill", "door", "bed", "friend", "run", "jump", "sing", "play", "sleep"]))

ASK = "[Tell me a very short story about|Tell me a tiny story about|A very short story about]"
OPENING = "[Once upon a time, there was|Once there was|There was|One day, there was] @ {adj} {kind}."
SHORT = [
    "{N} [had|found] @ {color} {toy}. {N} [loved|liked] the {color} {toy}.",
    "{N} liked {food}. Every day, {N} had {food}.",
    "{N} had a friend, @ {fadj} {fkind}. {N} and {fN} [played|sang|laughed] {at}.",
    "One day, {N} met @ {fkind}. \"Hello, little {fkind}!\" said {N}. \"Hello, little {kind}!\" said {fN}.",
    "One day, {N} was [sad|hungry|happy]. @ {fkind} came to help {N}.",
    "\"[Hello|Hi], little {kind}! [Where do you live|Who are you]?\" said @ {fkind}. \"I am @ {kind}. Are you @ {fkind}?\" said {N}. \"I am @ {fkind},\" said {fN}.",
]
LAST = ["{N} was @ {adj} {kind}.", "{N} was a happy {kind}.", "{N} went home.", "{N} and {fN} were friends."]
QUESTIONS = [
    ("{N} is {adj}. {fN} is {fadj}. Who is {fadj}?", "{fN} is {fadj}."),
    ("{N} is {adj}. {fN} is {fadj}. Who is {adj}?", "{N} is {adj}."),
    ("{N} has @ {color} {toy}. {fN} likes {food}. What does {N} have?", "{N} has @ {color} {toy}."),
    ("{N} has @ {color} {toy}. {fN} likes {food}. What does {fN} like?", "{fN} likes {food}."),
    ("I am @ {kind}.", "Hello, little {kind}! It is nice to meet you."),
    ("I like {food}.", "I am glad that you like {food}."),
    ("I have @ {color} {toy}.", "That is nice. I would like to see your {color} {toy}."),
]


def drill(rng):
    """One exercise with its end token."""
    s = Story(rng, rng.choice(KINDS))
    pick = rng.random()
    if pick < 0.1:
        words = " ".join(rng.choice(WORDS) for _ in range(rng.choice([1, 2, 3, 4, 6, 8])))
        return turn("user", rng.choice(["Say", "Repeat", "Please say", "Repeat after me:"]) + " " + words) + turn("assistant", words)
    if pick < 0.5:
        q, a = rng.choice(QUESTIONS)
        return turn("user", s.expand(q)) + turn("assistant", s.expand(a))
    text = s.expand(" ".join([OPENING] + rng.sample(SHORT, rng.choice([1, 1, 2])) + [rng.choice(LAST)]))
    if pick < 0.65:
        return text + EOT
    subject = rng.choice(["@ {kind}", "@ {kind}", "@ {adj} {kind}"])
    return turn("user", s.expand(f"{ASK} {subject}.")) + turn("assistant", text)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--megabytes", type=float, default=4)
    p.add_argument("--seed", type=int, default=3)
    p.add_argument("--out", default="drill.txt")
    a = p.parse_args()
    rng = random.Random(a.seed)
    size = 0
    with open(a.out, "w", encoding="utf-8") as f:
        while size < a.megabytes * 1e6:
            line = json.dumps(drill(rng), ensure_ascii=False) + "\n"
            size += len(line)
            f.write(line)


if __name__ == "__main__":
    main()
