"""A bank of everyday text: words, phrases and sentences about anything, to compare a query with on the same clip.

    >>> texts = bank()
    >>> len(texts), texts[0]
    (2048, 'a dog')

The question of zero-shot classification is asked of every moment: is the query a better description of it than these
are (`search.text_bank`)? So the bank has to be wide, not deep: things, people, places, weather, actions, shots and
colours, of several lengths, and text that no image can show. It holds no word list of any data set. It is embedded
once per encoder (`search.text_bank`).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

ANIMALS = """dog cat horse cow sheep goat pig chicken duck goose bird eagle owl parrot pigeon fish shark whale dolphin
turtle frog snake lizard crocodile lion tiger bear wolf fox deer rabbit mouse squirrel monkey gorilla elephant giraffe
zebra camel kangaroo penguin butterfly bee spider ant crab octopus jellyfish snail dinosaur"""
PEOPLE = """man woman child baby boy girl crowd couple family teacher student doctor nurse policeman soldier
firefighter chef waiter farmer fisherman worker singer dancer musician painter photographer clown bride groom king
queen priest athlete swimmer runner cyclist climber surfer skier referee astronaut driver pilot tourist old_man
teenager"""
VEHICLES = """car truck bus train tram bicycle motorcycle scooter tractor ambulance taxi van boat ship sailboat canoe
submarine ferry aeroplane helicopter rocket drone balloon skateboard wheelchair fire_engine excavator racing_car"""
THINGS = """table chair sofa bed lamp mirror clock window door curtain carpet shelf book newspaper letter pen pencil
scissors knife fork spoon plate cup glass bottle pot pan oven refrigerator washing_machine sink bathtub toilet towel
soap toothbrush candle vase basket box bag suitcase backpack umbrella hat shoe shirt dress jacket glove scarf glasses
watch ring necklace key lock phone laptop keyboard screen television camera radio microphone headphones guitar piano
violin drum trumpet hammer saw drill ladder rope wheel engine pipe brick flag statue fountain bench fence gate sign
traffic_light toy doll ball kite swing balloon gift flower_pot map globe telescope robot machine computer printer
battery bulb"""
FOOD = """apple banana orange strawberry grapes lemon pineapple tomato potato carrot onion salad soup bread cheese egg
rice noodles pizza burger sandwich steak sausage chicken_wing sushi cake cookie chocolate ice_cream pancake coffee tea
beer wine milk juice water birthday_cake popcorn"""
NATURE = """tree flower grass leaf bush cactus mushroom forest jungle mountain hill valley cliff rock sand desert
beach sea ocean wave river lake waterfall island swamp glacier volcano cave field meadow garden sky cloud sun moon
star rainbow lightning storm rain snow fog ice fire smoke dust shadow sunset sunrise"""
PLACES = """kitchen bedroom bathroom living_room office classroom library hospital church temple museum theatre cinema
restaurant bar cafe shop supermarket market street road bridge tunnel station airport harbour factory warehouse garage
farm barn stable park playground stadium gym swimming_pool castle tower skyscraper house hut tent village city
courtroom prison laboratory studio stage space_station"""
ACTIONS = """running walking jumping dancing singing talking laughing crying sleeping eating drinking cooking reading
writing painting drawing swimming diving surfing skiing skating climbing cycling driving riding flying falling
fighting boxing wrestling kissing hugging waving clapping pointing throwing catching kicking digging building cleaning
washing ironing sewing knitting fishing hunting shopping paying waiting working typing filming playing_football
playing_tennis playing_chess playing_cards juggling meditating marching praying voting"""
LOOKS = """red green blue yellow orange purple pink black white grey brown golden big small old new broken empty full
dark bright wet dirty wooden round tall"""
SHOTS = """close-up|an aerial view|a blurry picture|a black screen|a white screen|text on a screen|
a title card|a logo|a map of a country|a diagram|a cartoon|a video game|black and white film|slow motion|a time lapse|
a split screen|a screenshot|a portrait|a selfie|a landscape|something moving fast|nothing at all|the end credits|
a drawing|a painting|a photograph|an interview|a news broadcast|a weather forecast|a music video|a commercial|
security camera footage|a view from a car|a view from above|an underwater scene|the night sky|the inside of a house|
a crowd from behind|a face|hands|feet|an eye|a close-up of a hand"""
EVENTS = """a wedding|a birthday party|a funeral|a football match|a basketball game|a tennis match|a horse race|
a car race|a concert|a parade|a protest|fireworks|a car crash|an explosion|an earthquake|a flood|a traffic jam|
a meeting|a lecture|a trial|a graduation|a picnic|a barbecue|a magic show|a fashion show|a circus|a haircut|a surgery|
a robbery|a rescue|a game of chess|an election|a market day|a job interview|a train arriving|a ship leaving|
a plane landing|a rocket launch"""
ABSTRACT = """justice|freedom|tomorrow|yesterday|a reason|an idea|inflation|the price of gold|a promise|a rumour|
loyalty|an opinion|a definition|a theorem|grammar|probability|the law|a contract|interest rates|history|the future|
regret|a change of mind|a question of principle|silence|memory|luck|hunger|time|money|success|a mistake|the truth|
a secret|a joke|nothing can be concluded from this|the deadline was moved again|
interest accrues at the end of the term|an error in the third equation|the committee postponed its decision|
it depends on the interpretation|the warranty does not cover this|her argument rests on a false premise|
the limit exists and is unique|a clause about liability|the password has expired|regret came too late|
an apology was never offered|the exception proves the rule|his patience was exhausted|
the average of the last four quarters|a theorem follows from the axioms|yesterday's opinion was overruled|
the meaning of this word has changed|the grammar of an extinct language|memory fades with age|
they disagreed about the definition|an obligation that cannot be transferred|loyalty matters more than talent|
an amendment to the second paragraph|a rumour without foundation"""
SUBJECTS = """a dog|two people|a red car|a child|a crowd|a bird|a woman in a hat|an old man|a boat|somebody|
a football team|a cat|a man|a horse|flowers|a musician|a bicycle|a baby|a couple|a truck|a group of friends|
a man with a beard|a butterfly|a policeman|a girl|an empty chair|a flag|two men|a cake|an aeroplane|a robot|hands|
three ships|a blue train|a house|a white rocket"""
DOING = """running|sleeping|talking|laughing|standing still|moving slowly|falling over|jumping|waiting|burning|
coming closer|going away|turning around|disappearing|being painted|being repaired|getting wet|shaking"""
WHERE = """on a beach|in a kitchen|at night|in the snow|on a city street|in a forest|seen from above|
on a stage|in the rain|in a living room|by a river|in an office|close up|in the desert|at a railway station|
in bright sunlight|at sunset|at sea|in the mountains|on a farm|in space|in a garden|behind a window|in fog"""

_NO_ARTICLE = frozenset(
    [
        "sheep",
        "grass",
        "sand",
        "fire",
        "smoke",
        "dust",
        "rain",
        "snow",
        "fog",
        "ice",
        "lightning",
        "water",
        "milk",
        "juice",
        "coffee",
        "tea",
        "beer",
        "wine",
        "bread",
        "cheese",
        "rice",
        "popcorn",
        "soup",
        "salad",
        "chocolate",
    ]
)
_NOT_PLURAL = frozenset(["bus", "glass", "cactus", "octopus"])


def _words(*lists: str) -> list[str]:
    """The words of some lists; an underscore stands for a space."""
    return [word.replace("_", " ") for listed in lists for word in listed.split()]


def _phrases(listed: str) -> list[str]:
    return [" ".join(each.split()) for each in listed.split("|")]


def _with_article(noun: str) -> str:
    """Such as "an apple"; words without an article, such as "rain" or "grapes", get none."""
    last = noun.split()[-1]
    is_plural = last.endswith("s") and not last.endswith("ss") and last not in _NOT_PLURAL
    if is_plural or last in _NO_ARTICLE:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def abstract_texts() -> tuple[str, ...]:
    """Return the texts of the bank that no image can show."""
    return tuple(_phrases(ABSTRACT))


def first_queries() -> tuple[str, ...]:
    """Return short texts of the bank about what a video may show, such as a person might type first."""
    nouns = _words(ANIMALS, PEOPLE, VEHICLES, THINGS, FOOD, NATURE, PLACES)
    pairs = [f"{subject} {where}" for subject in _phrases(SUBJECTS) for where in _phrases(WHERE)]
    return (*(_with_article(noun) for noun in nouns), *_phrases(EVENTS), *pairs[::3])


@cache
def bank(size: int = 2048) -> tuple[str, ...]:
    """Return the texts, always the same ones: words and short phrases, then combinations drawn with a fixed seed.

    Args:
        size: the number of texts, 1,024 to 8,192.
    """
    nouns = _words(ANIMALS, PEOPLE, VEHICLES, THINGS, FOOD, NATURE, PLACES)
    texts = [_with_article(noun) for noun in nouns] + nouns[::2] + _words(ACTIONS, LOOKS)
    texts += _phrases(SHOTS) + _phrases(EVENTS) + _phrases(ABSTRACT)
    rng = np.random.default_rng(0)

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    looks, people, actions = _words(LOOKS), _words(PEOPLE), _words(ACTIONS)
    subjects, doing, where = _phrases(SUBJECTS), _phrases(DOING), _phrases(WHERE)
    combinations = (
        lambda: _with_article(f"{pick(looks)} {pick(nouns)}"),
        lambda: f"{_with_article(pick(nouns))} and {_with_article(pick(nouns))}",
        lambda: f"{_with_article(pick(people))} {pick(actions)} {pick(where)}",
        lambda: f"{pick(subjects)} {pick(doing)} {pick(where)}",
        lambda: f"{pick(subjects)} {pick(where)}",
    )
    unique = dict.fromkeys(texts)
    while len(unique) < size:
        unique[combinations[int(rng.integers(len(combinations)))]()] = None
    return tuple(unique)[:size]
