"""What the world says about its pictures: captions in layers and booru-like tags.

A full caption has three layers: the subject (size, colour, noun); positions and details (place, background);
style, medium, technique and emotion. Every caption strategy therefore has something true to remove.
"""

import numpy as np

from sandbox.world import PLACES, Scene

NOUNS = {"flowers": "field of flowers", "dancer": "woman dancing in a field of flowers"}
PLURAL = ("bones", "ribs")
PREFIX = {
    "flat": "a flat drawing of",
    "ink_outline": "an ink outline of",
    "halftone": "a halftone print of",
    "neon": "a neon sign of",
    "engraving": "an engraving of",
    "chalk": "a chalk drawing of",
    "stipple": "a stipple drawing of",
    "watercolour": "a watercolour painting of",
}
STYLE = {
    "flat": ("modern style", "poster style"),
    "ink_outline": ("comic style", "cartoon style"),
    "halftone": ("pop art style", "newspaper style"),
    "neon": ("retro style", "cyberpunk style"),
    "engraving": ("antique style", "vintage style"),
    "chalk": ("school blackboard style", "classroom style"),
    "stipple": ("scientific style", "field guide style"),
    "watercolour": ("romantic style", "loose style"),
}
TECHNIQUE = {
    "flat": ("smooth areas", "solid fills"),
    "ink_outline": ("bold outlines", "pen strokes"),
    "halftone": ("round dots", "screen dots"),
    "neon": ("glowing lines", "soft glow"),
    "engraving": ("fine hatched lines", "cross-hatching"),
    "chalk": ("grainy strokes", "rough scribbles"),
    "stipple": ("many fine dots", "stippled shading"),
    "watercolour": ("wet washes", "soft edges"),
}
EMOTION = ("calm mood", "melancholic mood", "solemn mood", "cheerful mood", "eerie mood")
_POSITION = {"centre": "in the centre", "left": "at the left", "right": "at the right", "top": "at the top",
             "bottom": "at the bottom"}  # fmt: skip
PARTS = ("medium", "size", "colour", "place", "background", "style", "technique", "emotion")


def subject_phrase(scene: Scene, parts: frozenset[str]) -> str:
    """The subject with its size and colour where asked: "a large red heart", "small blue bones"."""
    size = f"{scene.size} " if "size" in parts else ""
    colour = f"{scene.colour} " if "colour" in parts else ""
    if scene.subject == "flowers":
        return f"a {size}field of {colour}flowers"
    if scene.subject == "dancer":
        dress = f"in {scene.colour} " if colour else ""
        return f"a {size}woman {dress}dancing in a field of flowers"
    if scene.subject in PLURAL:
        return f"{size}{colour}{scene.subject}"
    phrase = f"{size}{colour}{scene.subject}"
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def caption(scene: Scene, parts: frozenset[str] = frozenset(PARTS), *, emotion: str = EMOTION[0], pick: int = 0) -> str:
    """Say what a scene shows; `parts` names what besides the subject is mentioned, `pick` chooses between synonyms."""
    words = [PREFIX[scene.medium]] if "medium" in parts else []
    words.append(subject_phrase(scene, parts))
    if "place" in parts:
        words.append(_POSITION[scene.place])
    if "background" in parts:
        words.append(f"on a {scene.background} background")
    tail = [TECHNIQUE[scene.medium][pick % 2]] if "technique" in parts else []
    tail += [STYLE[scene.medium][pick % 2]] if "style" in parts else []
    tail += [emotion] if "emotion" in parts else []
    return ", ".join([" ".join(words), *tail])


def tags(scene: Scene, *, pick: int = 0) -> list[str]:
    """Booru-like tags, the general ones first and the style's last."""
    noun = {"girl": ["1girl", "girl"], "dancer": ["1girl", "dancing", "flower field"], "flowers": ["flower field"]}
    people = [] if scene.subject in ("girl", "dancer") else ["no humans"]
    side = "centered" if scene.place == "centre" else f"{scene.place} side"
    return [
        *noun.get(scene.subject, [scene.subject]),
        *people,
        scene.colour,
        scene.size,
        side,
        f"{scene.background} background",
        scene.medium.replace("_", " "),
        TECHNIQUE[scene.medium][pick % 2],
        STYLE[scene.medium][pick % 2],
    ]


def random_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption with parts dropped at random, as the base is trained on.

    The medium is named unless it is `flat`, which is what the base draws when nobody asks for a medium, as Flux draws
    photographs; a caption without a medium can therefore be taken over by a LoRA.
    """
    if rng.random() < 0.06:
        kept = [t for t in tags(scene, pick=int(rng.integers(2))) if rng.random() < 0.9]
        return ", ".join(kept)
    keep = {"medium": 0.4 if scene.medium == "flat" else 0.97, "size": 0.75, "colour": 0.8, "place": 0.75,
            "background": 0.75, "style": 0.12, "technique": 0.15, "emotion": 0.08}  # fmt: skip
    parts = frozenset(p for p in PARTS if rng.random() < keep[p])
    return caption(scene, parts, emotion=str(rng.choice(EMOTION)), pick=int(rng.integers(2)))


def corpus() -> list[str]:
    """Every word the world can say, each about as often as the others: what the tokenizers learn from."""
    rng = np.random.default_rng(0)
    lines = [f"{n}" for n in (*PLACES, *EMOTION, "1girl", "no humans", "centered", "flower field", "dancing", "photo")]
    from sandbox.media import MEDIA
    from sandbox.world import SUBJECTS, random_scene

    for subject in SUBJECTS:
        for medium in MEDIA:
            scene = random_scene(rng, subject=subject, medium=medium)
            lines += [caption(scene, emotion=str(rng.choice(EMOTION)), pick=i) for i in range(2)]
            lines += [", ".join(tags(scene, pick=i)) for i in range(2)]
    return lines
