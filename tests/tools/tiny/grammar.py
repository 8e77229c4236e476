"""A small text grammar: alternatives, lazily bound words, pronouns and articles.

Template syntax:
  [a|b|c]  one of the alternatives (they nest; an empty one is allowed)
  {name}   a word of the story: bound at its first use, the same from then on
  @ word   "a word" or "an word", as English wants it
"""

import re

ANIMALS = [
    "dog", "cat", "bear", "rabbit", "mouse", "fox", "bird", "duck", "frog", "pig", "cow", "horse", "sheep", "owl",
    "lion", "elephant", "monkey", "turtle", "squirrel", "bee", "goat", "hen", "puppy", "kitten", "dragon", "penguin",
]
MORE = [
    "tiger", "wolf", "whale", "fish", "snake", "chicken", "deer", "snail", "ant", "crab", "goose", "donkey", "camel", "zebra", "giraffe",
    "butterfly", "dinosaur", "unicorn", "witch", "knight", "fairy", "pirate", "giant", "wizard", "baker", "teacher", "doctor", "star", "cloud",
    "snowman", "bunny", "lamb", "parrot", "swan", "hippo", "spider",
]
PEOPLE = ["boy", "girl", "boy", "girl", "boy", "girl", "king", "queen", "prince", "princess", "farmer", "robot"]
# A kind is always "she" or always "he", so that a small model need not remember which.
FEMALE = {
    "girl", "queen", "princess", "hen", "cow", "witch", "fairy", "cat", "mouse", "bird", "duck", "sheep", "bee", "goat", "kitten", "squirrel", "owl",
    "fish", "butterfly", "goose", "giraffe", "deer", "lamb", "bunny", "swan", "star", "unicorn", "teacher", "ant", "whale", "zebra", "spider",
}

ADJECTIVES = [
    "little", "small", "big", "brave", "kind", "happy", "shy", "funny", "clever", "quiet", "silly", "young", "friendly",
    "gentle", "lazy",
]
COLORS = ["red", "blue", "green", "yellow", "pink", "white", "brown", "purple", "orange", "black"]
TOYS = ["ball", "kite", "doll", "toy car", "toy boat", "toy train", "drum", "book", "hat", "balloon", "teddy bear", "bike"]
SMALL_THINGS = ["ring", "key", "coin", "hat", "ball", "book", "shell", "bell", "button", "spoon", "toy car", "scarf"]
FRAGILE = ["cup", "vase", "plate", "lamp", "bowl", "jar", "clock", "mirror"]
FOODS = ["apples", "berries", "cookies", "carrots", "nuts", "bread", "cheese", "soup", "pears", "honey", "corn", "cake"]
FRUITS = ["apple", "pear", "orange", "plum", "peach"]
SEEDS = ["flower", "tree", "carrot", "bean", "pumpkin", "rose"]
BABIES = ["bird", "kitten", "puppy", "rabbit", "mouse", "duck", "squirrel", "frog", "fox", "turtle"]
SKILLS = [
    ("swim", "swimming", "swam", "water"), ("sing", "singing", "sang", "song"), ("dance", "dancing", "danced", "music"),
    ("draw", "drawing", "drew", "picture"), ("read", "reading", "read", "book"), ("jump", "jumping", "jumped", "rope"),
    ("paint", "painting", "painted", "picture"), ("cook", "cooking", "cooked", "soup"),
]
PLACES = [
    ("in", "the park"), ("in", "the garden"), ("in", "the forest"), ("at", "the beach"), ("on", "the farm"),
    ("by", "the river"), ("by", "the lake"), ("on", "the hill"), ("in", "the yard"), ("in", "the field"), ("near", "the pond"),
]
HIDING = [
    "under the bed", "behind the tree", "under a bush", "behind the door", "in the tall grass", "under the table", "in the box",
    "behind a big rock", "near the fence", "in the kitchen", "under the chair", "by the old well",
]
HOMES = ["a small house", "a big house", "a cozy house near the forest", "a village by the sea", "a little town", "a house on a hill",
         "a warm home by the river", "an old barn"]
FEARS = [
    ("the dark", "It is only the night, and the stars are there to keep you safe"),
    ("the water", "We can start where it is not deep"),
    ("loud noises", "A noise can be loud, but it can not hurt you"),
    ("high places", "Hold my hand and take one small step"),
    ("the storm", "The storm is only wind and rain, and it will pass"),
    ("the big slide", "We can go down the slide together"),
]
BUILDS = [
    ("sand castle", "sand"), ("tower", "blocks"), ("tree house", "wood"), ("boat", "wood"), ("snowman", "snow"), ("bridge", "stones"),
    ("little house", "boxes"), ("kite", "paper"),
]
FAMILY = ["mom", "dad", "mother", "father", "grandma", "grandpa"]
HELPERS = ["owl", "farmer", "turtle", "woman", "man", "horse", "bird", "bear"]
GIFTS = ["cake", "book", "kite", "drum", "hat", "ball", "picture", "scarf", "bell", "toy boat"]


class Story:
    """The words bound so far in one story, and the rules that bind the others."""

    def __init__(self, rng, hero=None):
        self.rng = rng
        self.words = {}
        self.met = False
        self.hero = hero or rng.choice(rng.choice([ANIMALS, ANIMALS, PEOPLE, MORE]))
        self.friend = rng.choice([k for k in ANIMALS + ["boy", "girl"] if k != self.hero])
        self.put(self.hero, "")
        self.put(self.friend, "f")
        self.words["adj"], self.words["fadj"] = rng.sample(ADJECTIVES, 2)

    def put(self, kind, prefix):
        w = self.words
        he, him, his = ("she", "her", "her") if kind in FEMALE else ("he", "him", "his")
        w[prefix + "N"], w[prefix + "kind"] = f"the {kind}", kind
        w[prefix + "he"], w[prefix + "him"], w[prefix + "his"] = he, him, his
        w[prefix + "He"], w[prefix + "His"] = he.capitalize(), his.capitalize()
        w[prefix + "self"] = "herself" if he == "she" else "himself"

    def bind(self, key):
        """The word for `key`; a group of words that belong together is bound at once."""
        rng, w = self.rng, self.words
        if key in w:
            return w[key]
        pools = {
            "color": COLORS, "toy": TOYS, "thing": SMALL_THINGS, "fragile": FRAGILE, "food": FOODS, "fruit": FRUITS, "seed": SEEDS,
            "baby": BABIES, "home": HOMES, "family": FAMILY, "helper": HELPERS, "gift": GIFTS,
        }
        if key in pools:
            w[key] = rng.choice([x for x in pools[key] if x not in (self.hero, self.friend)])
        elif key in ("hide1", "hide2", "hide3"):
            w["hide1"], w["hide2"], w["hide3"] = rng.sample(HIDING, 3)
        elif key in ("place", "at"):
            prep, w["place"] = rng.choice(PLACES)
            w["at"] = f"{prep} {w['place']}"
        elif key in ("place2", "at2"):
            prep, w["place2"] = rng.choice([p for p in PLACES if p[1] != self.bind("place")])
            w["at2"] = f"{prep} {w['place2']}"
        elif key in ("skill", "skilling", "skilled", "skillthing"):
            w["skill"], w["skilling"], w["skilled"], w["skillthing"] = rng.choice(SKILLS)
        elif key in ("fear", "comfort"):
            w["fear"], w["comfort"] = rng.choice(FEARS)
        elif key in ("build", "stuff"):
            w["build"], w["stuff"] = rng.choice(BUILDS)
        elif key in ("Family", "famhe", "Famhe", "famhim"):
            he = "she" if self.bind("family") in ("mom", "mother", "grandma") else "he"
            w["famhe"], w["Famhe"], w["famhim"] = he, he.capitalize(), "her" if he == "she" else "him"
        else:
            raise KeyError(key)
        return w[key]

    def expand(self, text):
        """The template `text` as plain English."""
        while True:
            m = re.search(r"\[([^\[\]]*)\]", text)
            if not m:
                break
            text = text[: m.start()] + self.rng.choice(m.group(1).split("|")) + text[m.end():]
        # The friend is "a hen" when first met, "the hen" from then on.
        while "{meet}" in text:
            text = text.replace("{meet}", "{fN}" if self.met else "@ {fkind}", 1)
            self.met = True
        self.met = self.met or "{fkind}" in text
        text = re.sub(r"\{(\w+)\}", lambda m: self.bind(m.group(1)), text)
        text = re.sub(r"@ (?=[aeiouAEIOU])", "an ", text).replace("@ ", "a ")
        text = re.sub(r" +", " ", text).strip()
        text = re.sub(r" ([.,!?])", r"\1", text)
        return re.sub(r"(^|[.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
