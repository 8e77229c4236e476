"""Trains the byte-level BPE of builtin:tiny (GPT-2's splitting) and writes tokenizer.json.

    python bpe.py --corpus corpus.txt --out tokenizer.json
"""

import argparse
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stories import EOT, START, STOP

VOCAB = 1024
SPECIALS = [EOT, START, STOP]  # ids 0, 1, 2, as in SmolLM2


def train(documents):
    """The tokenizer: three special tokens, the 256 bytes, then merges."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(documents, trainer)
    return t


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--corpus", default="corpus.txt")
    p.add_argument("--out", default="tokenizer.json")
    a = p.parse_args()

    def documents():
        with open(a.corpus, encoding="utf-8") as f:
            for i, line in enumerate(f):
                if i % 4 == 0:
                    d = json.loads(line)
                    for s in SPECIALS:
                        d = d.replace(s, "\n")
                    yield d

    train(documents()).save(a.out)


if __name__ == "__main__":
    main()
