"""The settings as a person looks them up: `--help` with what each one means, and the nearest to a mistyped one.

A setting's meaning is the comment beside its field, which is read here from the source: it is written down once.
"""

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from sweep.schema import Config
from sweep.typed import folded

CONF = Path(__file__).parents[1] / "conf"
LISTED = 8  # entries of a list that are shown


def manual(about: str, config: DictConfig) -> str:
    """What can be chosen, and every setting with its value in this configuration and its meaning, in lines."""
    lines = [about.strip(), "", "Choices (GROUP=NAME):"]
    lines += [folded(f"{name}: {', '.join(choices)}", "  ") for name, choices in groups().items()]
    lines += ["", "Settings (KEY=VALUE) and their values with this command; as YAML: --cfg job"]
    part = ""
    for key, meaning in meanings(Config).items():
        if key.split(".")[0] != part:
            part = key.split(".")[0]
            lines.append("")
        lines += [f"  {line}" for line in _shown(config, key)]
        lines.append(folded(meaning, " " * 6))
    return "\n".join(lines) + "\n"


def groups() -> dict[str, list[str]]:
    """Hydra's groups with their options, in alphabetical order."""
    found = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in sorted(CONF.iterdir())}
    return {name: options for name, options in found.items() if options}


def meanings(kind: type, prefix: str = "") -> dict[str, str]:
    """Every key below a dataclass of settings -> what its comment says, with the values it takes if they are few."""
    said: dict[str, str] = {}
    comments, hints = _comments(kind), get_type_hints(kind)
    for item in fields(kind):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint):
            said |= meanings(hint, f"{key}.")  # type: ignore[arg-type] # a hint is a type here
        else:
            enums = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, StrEnum)]
            values = "".join(f" ({', '.join(part)})" for part in enums)
            said[key] = comments.get(item.name, "") + values
    return said


def nearest(key: str) -> str:
    """What a key that does not exist may have been meant to be, as a sentence."""
    known = [*meanings(Config), *groups()]
    near = [name for name in known if name.endswith(f".{key}")][:3] or get_close_matches(key, known, n=3)
    asked = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{asked}python -m sweep --help lists every setting."


def unknown_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The keys that no room has: Hydra lets a + add them to anything."""
    kind = OmegaConf.get_type(config)
    known = {item.name for item in fields(kind)} if kind is not None and is_dataclass(kind) else None
    for name in map(str, config):
        if name == "hydra" and not prefix:  # a sweep's configurations still have Hydra's own part
            continue
        if known is not None and name not in known:
            yield f"{prefix}{name}"
        elif not OmegaConf.is_missing(config, name) and isinstance(config[name], DictConfig):
            yield from unknown_keys(config[name], f"{prefix}{name}.")


def _comments(kind: type) -> dict[str, str]:
    """The comment of every field of a dataclass, its bases' where it has none of its own."""
    said: dict[str, str] = {}
    for owner in reversed([owner for owner in kind.__mro__ if is_dataclass(owner)]):
        said |= _comments_in(owner.__module__)[owner.__name__]
    return said


@cache
def _comments_in(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> its comment, on one of its lines or on the line above it."""
    source = inspect.getsource(sys.modules[module])
    comments: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:"):
            alone = token.line.strip() == token.string
            (above if alone else comments)[token.start[0]] = token.string.removeprefix("#").strip()
    said: dict[str, dict[str, str]] = {}
    for kind in ast.parse(source).body:
        if isinstance(kind, ast.ClassDef):
            own = said[kind.name] = {}
            for node in kind.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    beside = [comments[line] for line in lines if line in comments]
                    if found := beside or [above[line] for line in (node.lineno - 1,) if line in above]:
                        own[node.target.id] = found[0]
    return said


def _shown(config: DictConfig, key: str) -> list[str]:
    """The setting as overrides that would set what it is; a dict as one for each of its entries."""
    part, _, name = key.rpartition(".")
    node = OmegaConf.select(config, part)
    if OmegaConf.is_missing(node, name):
        return [f"{key}=???"]
    value = node[name]
    if isinstance(value, DictConfig) and value:
        return [f"{key}.{entry}={_plain(value[entry])}" for entry in map(str, value)]
    return [f"{key}={_plain(value)}"]


def _plain(value: Any) -> str:
    if isinstance(value, ListConfig):
        more = f",… {len(value)} in all" if len(value) > LISTED else ""
        nested = any(isinstance(entry, DictConfig) for entry in value)
        return f"[{len(value)} of them]" if nested else f"[{','.join(map(_plain, value[:LISTED]))}{more}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
