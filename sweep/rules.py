"""What parameters have to do with each other, written as one would say it.

    search.when:                                    # a parameter that is drawn only where it means something
      captions.strip: captions == edited
    search.rules:                                   # points that are never drawn
      - mix.repeats.512 >= mix.repeats.768
      - captions in (none, trigger) or train.lora.rank <= 16

Keys, choices and numbers, compared and calculated with as in Python; a word that is no key is one of the choices. A
key that is not searched stands for its value in the configuration. Nothing else can be written: no call, no attribute.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from optuna.distributions import CategoricalDistribution

from sweep.errors import InputError
from sweep.points import Point
from sweep.space import Space

Lookup = Callable[[str], Any]

EXAMPLE = "captions == edited, or mix.repeats.512 >= mix.repeats.768"
NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])"
TOKEN = re.compile(rf"(?P<quoted>'[^']*'|\"[^\"]*\")|(?P<number>{NUMBER})|(?P<word>\w+(?:[./]\w+)*)")
KEYWORDS = {"and": "and", "or": "or", "not": "not", "in": "in"}
KEYWORDS |= {name: name for name in ("True", "False", "None")} | {"true": "True", "false": "False", "null": "None"}
GRAMMAR = (
    *(ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Name, ast.Constant, ast.Tuple, ast.Load),
    *(ast.cmpop, ast.boolop, ast.unaryop, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)


class Unknown(LookupError):
    """A word that is neither a key nor a choice."""


@dataclass(frozen=True)
class Rule:
    """One condition, ready to be computed."""

    text: str
    code: CodeType
    keys: dict[str, str]  # name in the code -> searched key
    known: dict[str, Any]  # name in the code -> value of a key that is fixed

    def holds(self, point: Point) -> bool | None:
        """Whether the point keeps it; None where it speaks of a parameter that the point does not have.

        Raises:
            InputError: if it cannot be computed, such as a text that is larger than a number.
        """
        if any(key not in point for key in self.keys.values()):
            return None
        values = {**self.known, **{name: point[key] for name, key in self.keys.items()}}
        try:
            return bool(eval(self.code, {"__builtins__": {}}, values))  # `read_rule` lets no call or attribute in
        except (TypeError, ZeroDivisionError) as fault:
            at = ", ".join(f"{key}={point[key]}" for key in self.keys.values())
            raise InputError(f"`search`: the condition {self.text!r} cannot be computed at {at}: {fault}") from fault


def read_rule(text: str, space: Space, lookup: Lookup) -> Rule:
    """Reads one condition.

    Args:
        lookup: the value that a key which is not searched has in the configuration; raises LookupError if it has none.

    Raises:
        InputError: naming the word or sign that has no place in a condition.
    """
    choices = {str(c) for dist in space.values() if isinstance(dist, CategoricalDistribution) for c in dist.choices}
    keys: dict[str, str] = {}
    known: dict[str, Any] = {}

    def name(match: re.Match[str]) -> str:
        word = match["word"]
        if word is None:
            return match[0]
        if word in KEYWORDS:
            return KEYWORDS[word]
        slot = f"_{len(keys) + len(known)}"
        if word in space:
            keys[slot] = word
        elif word in choices:
            return repr(word)
        else:
            try:
                known[slot] = lookup(word)
            except LookupError:
                raise Unknown(f"{word!r} is neither a key nor one of the choices") from None
        return slot

    try:
        tree = ast.parse(TOKEN.sub(name, text), mode="eval")
    except Unknown as fault:
        raise InputError(f"`search`: in the condition {text!r} {fault}") from None
    except SyntaxError:
        raise InputError(f"`search`: {text!r} is no condition: write it as in {EXAMPLE}") from None
    odd = next((node for node in ast.walk(tree) if not isinstance(node, GRAMMAR)), None)
    if odd is not None or not keys:
        why = f"{type(odd).__name__} has no place in a condition" if odd is not None else "it names nothing searched"
        raise InputError(f"`search`: {text!r}: {why}; write it as in {EXAMPLE}")
    return Rule(text, compile(tree, "search", "eval"), keys, known)


@dataclass(frozen=True)
class Conditions:
    """Every condition of a search."""

    when: dict[str, Rule] = field(default_factory=dict)  # parameter -> where it is drawn
    rules: list[Rule] = field(default_factory=list)  # what every point keeps

    def active(self, key: str, point: Point) -> bool:
        """Whether a parameter is drawn, given those before it; no, where its condition speaks of one that is not."""
        return key not in self.when or self.when[key].holds(point) is True

    def allow(self, point: Point) -> bool:
        """Whether a point keeps every rule; a rule about a parameter that is not drawn says nothing."""
        return all(rule.holds(point) is not False for rule in self.rules)


def read_conditions(when: Mapping[str, str], rules: Sequence[str], space: Space, lookup: Lookup) -> Conditions:
    """Reads `search.when` and `search.rules`; a condition of a parameter that is fixed has nothing left to say.

    Raises:
        InputError: for what is no condition, or a condition of what is not searched and never was.
    """
    made = Conditions()
    for key, text in when.items():
        if key in space:
            made.when[key] = read_rule(text, space, lookup)
        else:
            try:
                lookup(key)
            except LookupError:
                raise InputError(f"`search.when` has a condition for {key!r}, which is not searched") from None
    for text in rules:
        try:
            made.rules.append(read_rule(text, space, lookup))
        except InputError as fault:
            if "names nothing searched" not in str(fault):
                raise
    return made


def in_order(space: Space, conditions: Conditions) -> Space:
    """The space with every parameter after those that its condition speaks of.

    Raises:
        InputError: if two wait for each other.
    """
    left, placed = dict(space), Space()
    while left:
        ready = next((k for k in left if k not in conditions.when or _spoken_of(conditions.when[k]) <= set(placed)), "")
        if not ready:
            raise InputError(f"`search.when`: the conditions of {', '.join(left)} go round in a circle")
        placed[ready] = left.pop(ready)
    return placed


def _spoken_of(rule: Rule) -> set[str]:
    return set(rule.keys.values())
