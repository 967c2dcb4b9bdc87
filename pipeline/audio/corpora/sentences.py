"""English sentences in any number, from our own templates and words, no two alike."""

import random
import re
from collections.abc import Callable, Iterator

from pipeline.audio.corpora.words import WORDS

# A slot {name} takes a word of WORDS or a number of NUMBERS, never the same one twice in a sentence.
TEMPLATES: tuple[str, ...] = (
    # What someone did.
    "{name} {did} a {adjective} {object} {when}.",
    "{name} {did} the {object} {reason}.",
    "{person} {adverb} {did} the {object} and put it {where}.",
    "{when}, {person} {did} {count} {objects} in {room}.",
    "{people} {did} the {objects} {when}, {reason}.",
    "{name} and {name} {went} {place} {when}.",
    "{person} {went} {place} {reason}.",
    "{people} {went} {place}, then {went} {place}.",
    "{name}, who is {job}, {did} the {object} {adverb}.",
    "{person} gave {name} a {colour} {object} made of {material}.",
    "nobody knew that {person} {did} the {object} {when}.",
    "the {object} that {name} {did} {when} had stood {where} for {count} years.",
    "instead of the {object}, {name} {did} a {adjective} {object}.",
    # Animals.
    "a {adjective} {animal} {moved} {across}.",
    "the {animal} and the {animal} {moved} {across} {when}.",
    "{when}, a {animal} {moved} {across} and {moved} {across}.",
    "have you ever seen a {animal} near {place}?",
    "the {adjective} {animal} slept {where} {reason}.",
    "{person} heard {sound}, and a {animal} {moved} {across}.",
    # Food.
    "{name} {made} the {food} {when}.",
    "stir the {ingredient} into the {food}, and wait for {count} minutes.",
    "first add the {ingredient}, then the {ingredient}, and at last the {ingredient}.",
    "mix {count} {unit} of {ingredient} with a little {ingredient}.",
    "{people} {made} {food} and {food} in {room}.",
    "would you like {food} or {food}?",
    "{person} thinks that {food} needs more {ingredient}.",
    "the {food} was too {adjective}, so {name} asked for {food}.",
    # Journeys, times and numbers.
    "the {ordinal} {vehicle} to {city} leaves at {time} from platform {small}.",
    "the {vehicle} from {city} will arrive at {time}, {count} minutes late.",
    "how long does the {vehicle} from {city} to {city} take?",
    "on {month} the {ordinal}, {year}, {name} moved from {city} to {city}.",
    "please call {phone} before {time} on {day}.",
    "the meeting on {day} begins at {time} in room {large}.",
    "it is {count} {unit} from {place} to {place}.",
    "in {year}, only {large} {objects} were sold in {city}.",
    "take bus number {count} to {city}, and get off at {place}.",
    "flight {phone} to {city} is now boarding at gate {count}.",
    "{count} plus {count} is not {count}.",
    "the code is {digits}; I repeat, {digits}.",
    "our shop opens at {time} and closes at {time}, except on {day}.",
    "at {time} it was {count} degrees in {city} and {count} in {city}.",
    "the box holds {count} {objects} and {count} {objects}.",
    "she scored {count} points in the {ordinal} round and {count} in the {ordinal}.",
    "chapter {small} begins on page {large}.",
    "the {object} costs {count} pounds {count}, or {large} with the {object}.",
    # Weather.
    "{weather} is expected over {region} {soon}.",
    "after {weather} {when}, {region} can look forward to {weather}.",
    "{region} will see {weather} on {day}, with {count} degrees at most.",
    "because of {weather}, the {vehicle} to {city} has been cancelled.",
    "they crossed {region} by {vehicle}, through {weather} and {weather}.",
    # Questions.
    "where did you put the {adjective} {object}?",
    "why has {person} {done} the {colour} {object}?",
    "is the {object} still {where}, or has {name} taken it to {place}?",
    "who left {count} {objects} {where} {when}?",
    "can {people} {plan} {soon}?",
    "do you know whether {name} wants to {plan}?",
    "which is heavier, the {object} or the {object}?",
    "what time is it in {city} when it is {time} in {city}?",
    "what would {person} do with {count} {objects}?",
    "did {name} really study {subject} in {city}?",
    "should we {plan} or {plan} {soon}?",
    # Requests and advice.
    "{advice} {before}.",
    "please put the {object} {where} {before}.",
    "do not {plan} {before}.",
    "let us {plan} {soon}, and {plan} {soon}.",
    "could you bring {count} {objects} to {room} {soon}?",
    "bring the {colour} {object}, not the {colour} one.",
    "turn left at {place}, go on for {count} {unit}, and look for a {colour} door.",
    # What people say and think.
    '"{problem}," {said} {name}, "so we must {plan} {soon}."',
    "{name} {said} that {opinion}.",
    "{person} {said} {adverb} that {opinion}.",
    "if {problem}, then {person} cannot {plan}.",
    "when {problem}, {people} always {plan}.",
    "{name} is {feeling}, because {problem}.",
    "I am sure that {opinion}, but {name} is {feeling}.",
    "you should never {plan} when {problem}.",
    "{people} were {feeling} {when}, for {problem}.",
    "{person} was {feeling} and {feeling} at the same time.",
    "although {opinion}, {people} wanted to {plan}.",
    "thank you, {name}; I will {plan} {soon}.",
    "oh no, {problem} again!",
    "what a {adjective} {object}!",
    "yes, {name}, {opinion}.",
    # Learning, work, health.
    "{name} taught {subject} in {city} for {count} years.",
    "{person} would rather study {subject} than {subject}.",
    "my {body} hurts, and so does my {body}.",
    "{name} woke up with a sore {body} {when}, {reason}.",
    "to become {job}, you have to understand {subject}.",
    "{people} need {job}, {job} and {count} {objects}.",
    "in {room} there was {sound}, then {sound}, then silence.",
    "{sound} came from {room} {when}.",
    # Descriptions.
    "the {object} is {colour}, the {object} is {colour}, and both are made of {material}.",
    "{place} is more {adjective} than {place}.",
    "there are {count} {colour} {objects} {where} and a {object} {where}.",
    "a {adjective} road leads from {place} to {place}.",
    "every {day}, {person} sells {adjective} {objects} near {place}.",
    "{room} smelled of {food} and {ingredient}.",
    "her {object} was {adjective}, {adjective} and rather {adjective}.",
    "the {material} {object} in {room} was {done} by {person}.",
)

NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "small": lambda rng: str(rng.randint(1, 20)),
    "count": lambda rng: str(rng.randint(2, 99)),
    "large": lambda rng: str(rng.randint(100, 1999)),
    "year": lambda rng: str(rng.randint(1801, 2029)),
    "digits": lambda rng: " ".join(str(rng.randint(0, 9)) for _ in range(4)),
    "phone": lambda rng: " ".join(str(rng.randint(0, 9)) for _ in range(6)),
    "time": lambda rng: rng.choice(
        (
            f"{rng.randint(1, 12)}:{rng.randint(10, 59)}",
            f"{rng.choice(('half past', 'a quarter to', 'a quarter past'))} {rng.randint(1, 12)}",
            f"{rng.randint(1, 12)} o'clock",
        )
    ),
}

_SLOT = re.compile(r"\{(\w+)\}")
# The article goes by sound: an 8 and an 11, but a one and a university.
_AN = re.compile(r"\b([Aa]) (?=8|11\b|18\b|[aeioAEIO](?!ne\b|nce\b|ur)|u(?!ni|s[ue])|hour|honest)")
MAX_REPEATS = 10_000


def distinct_sentences(seed: int) -> Iterator[str]:
    """Yield sentences of which no two are the same, always in the same order for the same seed.

    The iterator ends when 10,000 draws on end have brought nothing new.
    """
    rng = random.Random(f"sentences/{seed}")
    seen = set()
    repeats = 0
    while repeats < MAX_REPEATS:
        sentence = _fill(rng.choice(TEMPLATES), rng)
        repeats += 1
        if sentence not in seen:
            repeats = 0
            seen.add(sentence)
            yield sentence


def _fill(template: str, rng: random.Random) -> str:
    used: set[str] = set()

    def choose(match: re.Match[str]) -> str:
        slot = match[1]
        while True:
            word = NUMBERS[slot](rng) if slot in NUMBERS else rng.choice(WORDS[slot])
            if word not in used:
                used.add(word)
                return word

    sentence = _AN.sub(r"\1n ", _SLOT.sub(choose, template))
    first = next(index for index, character in enumerate(sentence) if character.isalnum())
    return sentence[:first] + sentence[first].upper() + sentence[first + 1 :]
