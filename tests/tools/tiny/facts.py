"""Short questions and answers for the chat part of the corpus."""

COLOR_OF = {
    "the sky": "blue", "the sun": "yellow", "grass": "green", "snow": "white", "a carrot": "orange", "a banana": "yellow", "a strawberry": "red",
    "a pig": "pink", "the night": "black", "milk": "white", "a leaf": "green", "the sea": "blue", "a bear": "brown", "a lemon": "yellow",
    "chocolate": "brown", "a frog": "green", "a cloud": "white", "a fox": "orange",
}
SAYS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "bird": "tweet", "owl": "hoot", "lion": "roar",
    "mouse": "squeak", "bee": "buzz", "frog": "ribbit", "horse": "neigh", "hen": "cluck", "goat": "baa",
}
LEGS = {"dog": "four", "cat": "four", "bird": "two", "cow": "four", "duck": "two", "bee": "six", "spider": "eight", "horse": "four", "pig": "four",
        "hen": "two", "boy": "two", "fish": "no", "snake": "no", "ant": "six"}
EATS = {"rabbit": "carrots and grass", "cow": "grass", "cat": "fish and meat", "monkey": "bananas", "squirrel": "nuts", "bear": "honey and fish",
        "mouse": "cheese and seeds", "bird": "seeds and worms", "horse": "grass and apples", "sheep": "grass", "dog": "meat", "owl": "mice"}
LIVES = {"fish": "in the water", "bird": "in a nest", "bear": "in the forest", "cow": "on a farm", "frog": "near a pond", "bee": "in a hive",
         "lion": "on the warm plains", "penguin": "in the cold south", "fox": "in the forest", "pig": "on a farm", "monkey": "in the trees",
         "whale": "in the sea"}
OPPOSITE = [("big", "small"), ("hot", "cold"), ("happy", "sad"), ("up", "down"), ("day", "night"), ("fast", "slow"), ("old", "young"), ("good", "bad"),
            ("wet", "dry"), ("open", "closed"), ("loud", "quiet"), ("in", "out"), ("left", "right"), ("black", "white"), ("hard", "soft"), ("high", "low")]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
UNKNOWN = [
    "What is the capital of France?", "Who is the president?", "How far is the moon?", "What is the weather today?", "What time is it?",
    "Write a program in Python.", "Explain gravity.", "What is quantum physics?", "Who won the game?", "Translate this to French.",
    "What is the meaning of life?", "How do I fix my car?", "What is 37 times 12?", "Who wrote this book?", "How old is the earth?",
    "What is the news today?", "Can you write an email for me?", "Why is the sky blue?", "What is a computer?", "How do planes fly?",
    "What is the largest country?", "Write a poem about love.", "Solve this equation.", "What is the speed of light?", "Give me a recipe for pizza.",
    "How many people live in China?", "What is the population of Germany?", "When did the war end?", "What is DNA?", "Summarize this text.",
]
SMALL_TALK = [
    (["Hello", "Hi", "Hey", "Hello!", "Hi!", "Hi there!", "Good morning!", "Hello there."],
     ["Hello! Would you like to hear a story?", "Hello! I am Tiny. Shall I tell you a story?", "Hi! It is nice to meet you."]),
    (["How are you?", "How are you today?", "Are you well?", "How do you feel?"],
     ["I am well, thank you. How are you?", "I am very happy today. Thank you for asking."]),
    (["What is your name?", "What's your name?", "Do you have a name?", "Tell me your name.", "What are you called?"],
     ["My name is Tiny.", "I am called Tiny, because I am a very small model."]),
    (["Who are you?", "What are you?", "Are you a robot?", "Are you a person?", "Tell me about yourself.", "Are you an AI?", "Introduce yourself."],
     ["I am Tiny, a very small language model. I like to tell stories.", "I am a very small language model. My name is Tiny."]),
    (["What can you do?", "How can you help me?", "What do you know?", "Help", "Can you help me?", "What are you good at?"],
     ["I can tell short stories and answer small questions. Ask me for a story about a dog!",
      "I can tell you a short story. I also know some colors, animals and numbers."]),
    (["Thank you!", "Thanks!", "Thank you very much.", "Thanks a lot!", "That was nice.", "I liked it.", "Great!", "Nice story!", "Good job!"],
     ["You are welcome!", "You are welcome! Would you like another story?"]),
    (["Bye", "Goodbye!", "Good night!", "See you later.", "Bye bye!", "I have to go."],
     ["Goodbye! Come back soon.", "Goodbye! Have a good day."]),
    (["I am sad.", "I feel sad today.", "I am lonely.", "I had a bad day."],
     ["I am sorry to hear that. Maybe a story will make you smile.", "I am sorry. I hope that you feel better soon."]),
    (["I am happy!", "I feel great.", "I had a good day.", "It is my birthday!"], ["That is wonderful!", "That makes me happy too!"]),
    (["Do you like stories?", "What do you like?", "What is your favorite thing?"],
     ["I love stories about animals and friends.", "I like short stories best."]),
    (["How big are you?", "How many parameters do you have?", "Are you big?", "Are you small?"],
     ["I am very small. I have about one million parameters.", "I am a very small model, but I can tell stories."]),
    (["Who made you?", "Where do you come from?", "Who created you?"],
     ["I was made by a small script, from stories that a small script wrote.", "I was made for Shardlight, to test it everywhere."]),
]


def fact(rng):
    """One question and its answer."""
    pick = lambda d: rng.choice(list(d.items()))
    cap = lambda s: s[0].upper() + s[1:]
    an = lambda s: ("an " if s[0] in "aeiou" else "a ") + s
    kind = rng.randrange(11)
    if kind == 0:
        x, c = pick(COLOR_OF)
        q = rng.choice([f"What color is {x}?", f"What colour is {x}?", f"Which color is {x}?", f"Tell me the color of {x}."])
        return q, f"{cap(x)} is {c}."
    if kind == 1:
        x, s = pick(SAYS)
        q = rng.choice([f"What does {an(x)} say?", f"What sound does {an(x)} make?", f"What does the {x} say?"])
        return q, rng.choice([f"{cap(an(x))} says {s}.", f"The {x} says {s}, {s}!"])
    if kind == 2:
        x, n = pick(LEGS)
        return rng.choice([f"How many legs does {an(x)} have?", f"How many legs has {an(x)}?"]), f"{cap(an(x))} has {n} legs."
    if kind == 3:
        x, e = pick(EATS)
        return rng.choice([f"What does {an(x)} eat?", f"What does {an(x)} like to eat?"]), f"{cap(an(x))} likes to eat {e}."
    if kind == 4:
        x, w = pick(LIVES)
        return rng.choice([f"Where does {an(x)} live?", f"Where is the home of {an(x)}?"]), f"{cap(an(x))} lives {w}."
    if kind == 5:
        a, b = rng.choice(OPPOSITE)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return rng.choice([f"What is the opposite of {a}?", f"What's the opposite of {a}?"]), f"The opposite of {a} is {b}."
    if kind == 6:
        n = rng.randrange(3, 11)
        last = NUMBERS[n] if rng.random() < 0.5 else str(n)
        return rng.choice([f"Count to {last}.", f"Can you count to {last}?"]), ", ".join(NUMBERS[1 : n + 1]).capitalize() + "."
    if kind == 7:
        n = rng.randrange(1, 10)
        if rng.random() < 0.5:
            return f"What comes after {NUMBERS[n]}?", f"{cap(NUMBERS[n + 1])} comes after {NUMBERS[n]}."
        d = rng.randrange(6)
        return rng.choice([f"What day comes after {DAYS[d]}?", f"What comes after {DAYS[d]}?"]), f"{DAYS[d + 1]} comes after {DAYS[d]}."
    if kind == 8:
        a = rng.randrange(0, 6)
        b = rng.randrange(0, 6)
        if rng.random() < 0.5:
            return f"What is {NUMBERS[a]} plus {NUMBERS[b]}?", f"{cap(NUMBERS[a])} plus {NUMBERS[b]} is {NUMBERS[a + b]}."
        return rng.choice([f"What is {a} + {b}?", f"What is {a} plus {b}?"]), f"{a} plus {b} is {a + b}."
    if kind == 9:
        return rng.choice(UNKNOWN), rng.choice(["I do not know that. I am a very small model, but I can tell you a story.",
                                                "I am sorry, I do not know. I can tell you a story about an animal."])
    q, a = rng.choice(SMALL_TALK)
    return rng.choice(q), rng.choice(a)
