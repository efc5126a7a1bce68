"""Texts about what the rendered world never draws, for measuring false acceptances.

    >>> len(absent_texts(500)), absent_texts(500)[0]
    (500, 'an elephant')
    >>> set(absent_texts(500)) & set(absent_texts(200, for_fit=True))
    set()

They share no noun with those that a calibration is fitted on.
"""

from collections.abc import Sequence

import numpy as np

_NOUNS = """an elephant|a bicycle|a laptop|a guitar|a violin|a bride|a nurse|a refrigerator|a staircase|a giraffe|
a chef|a football|a zebra|a wedding cake|a microscope|a swimming pool|a mirror|a surgeon|a penguin|a horse|a bridge|
a dragon|
a plate of spaghetti|a goalkeeper|a typewriter|a helicopter|a chess board|a coffee cup|a wheelchair|a dentist|
an escalator|a pizza|a basketball player|a crocodile|a library|a classroom|a telescope|a ballerina|a tractor|a camel|
a soldier|a newspaper|a fountain|a crowd|a baby|two businessmen|a judge|a skateboard|a washing machine|a motorcycle"""
_FIT_NOUNS = """a cat|a piano|a table|a keyboard|a policeman|an umbrella|a kitchen|a bus|a cow|a monkey|a trumpet|
a hospital bed|an old lady|a smartphone|a bottle of wine|a knife|a teacher|a crane operator|a robot|a lion|
a supermarket|a sandwich|a tennis racket|a cyclist|an aeroplane|a spider|a statue|a candle|a carpet|a bookshelf|
a drummer|a waterfall|a tunnel|a shopping bag|a fireman|a sheep|a bathtub|a pair of scissors|a tennis court|a singer"""
_DOING = """in a living room|on a staircase|in an office|at a railway station|being repaired|in a courtroom|
on a television screen|in a laboratory|seen in a mirror|next to a swimming pool|talking on the phone|in a museum|
in a crowded restaurant|behind a counter|during an interview|inside a lift|at a wedding|in black and white|
on a football pitch|in a hospital corridor"""
_FIT_DOING = """in a kitchen|at a market|reading a book|on a bus|in a theatre|near a swimming bath|at the airport|
in a factory|playing cards|under an umbrella|in a car park|at a concert|in a bedroom|during a meeting|on a balcony"""
_PLAIN = """a quarterly report on a desk|people playing the violin|a doctor with a stethoscope|
a knight fighting a dragon|a cup of coffee and a newspaper|a woman typing on a laptop|
a bicycle leaning against a wall|two men shaking hands|a child blowing out candles|a crowd in a stadium|
a man cutting vegetables|somebody signing a contract|hands kneading dough|a close-up of an eye|
an interview with a politician|students taking an exam|a surgeon at work|a dancer on a stage|
a basketball going through a hoop|traffic on a motorway"""


def _split(listed: str) -> list[str]:
    return [" ".join(text.split()) for text in listed.split("|")]


def absent_texts(number: int, *, for_fit: bool = False) -> list[str]:
    """Return texts that no rendered film shows, the same every time: words first, then phrases and sentences.

    Args:
        number: how many, at most 500; 400 of those to fit on.
        for_fit: of the nouns that a calibration is fitted on, not of those that are reported.

    Raises:
        ValueError: there are not so many.
    """
    nouns, doing = (
        _split(_FIT_NOUNS if for_fit else _NOUNS),
        _split(_FIT_DOING if for_fit else _DOING),
    )
    texts = [*nouns, *(noun.split(maxsplit=1)[1] for noun in nouns)]
    if not for_fit:
        texts += _split(_PLAIN)
    texts += _shuffled([f"{noun} {place}" for noun in nouns for place in doing])
    unique = list(dict.fromkeys(texts))
    if not 0 < number <= min(len(unique), 400 if for_fit else 500):
        raise ValueError(f"there are 500 texts, and 400 to fit on; asked for are {number}")
    return unique[:number]


def _shuffled(texts: Sequence[str]) -> list[str]:
    return [texts[k] for k in np.random.default_rng(0).permutation(len(texts)).tolist()]
