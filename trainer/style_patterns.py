"""Patterns for words of style that no list can hold: "in the style of Dürer", "by Claude Monet", "bold black lines".

They read the words of a sentence joined by spaces, commas among them.
"""

import re

from trainer.settings import Strip

_PARTS = {
    "BEGIN": r"(?:^|(?<=, ))",  # of a clause
    "END": r"(?= ,|$)",
    "REST": r"[^,]*?(?= ,|$)",  # of a clause
    "PHRASE": r"(?:(?! (?:sitting|standing|holding|wearing|walking|riding|running|looking|playing|dancing|reading"
    r"|lying|flying|carrying|eating|sleeping|with|(?:show|depict|featur|portray|illustrat)(?:s|es|ing)"
    r"|of (?:an?|<COUNT>))\b)[^,])*",
    # up to what the subject does
    "ART": r"(?:(?:an?|the|its) )?",
    "WORD": r"[\w'&.-]+",
    "NAME": r"(?:[A-Z][\w'.-]*|van|von|de|der|da|di|le|la)",
    "STYLES": r"(?:styles?|manner|aesthetics?|artstyle|tradition|fashion)",
    "BOOKS": r"(?:atlas|textbook|book|manuscript|encyclopa?edia|comics?|magazine|journal|treatise|herbal)",
    "MOODS": r"(?:mood|atmosphere|feel|feeling|vibes?|ambience|emotion|sense)",
    "LINES": r"(?:(?:out|sight)?lines?|line ?(?:art|work)|contours?|(?:brush)?strokes?|brushwork|[\w-]*shading"
    r"|palettes?|tones?|tonality|hues|textur(?:es?|ing)|[\w-]*lighting|colou?rs|colou?ring|colou?r scheme|focus"
    r"|contrast|saturation"
    r"|[\w-]*hatching|stippling|grain|dots|washes|gradients?|shadows|highlights|silhouettes|edges|bloom|blur|bokeh|flares?"
    r"|vignett(?:e|ing)|aberration|distortion|artifacts|noise|perspective|composition|viewpoint|angle|framing|finish"
    r"|exposure|typography|lettering|detail(?:s|ing)?|patterning|splatters?|layering|proportions|aesthetics?)",
    "THINGS": r"(?:power|phone|telephone|train|tram|railway|subway|tan|clothes|washing|fishing|polka|picket|finish"
    r"|chorus|hair|eye|skin|school) ",
    "COLOURS": r"(?:reds|blues|greens|browns|gr[ae]ys|yellows|oranges|purples|pinks|whites|blacks|golds|teals|ochres"
    r"|creams|violets|turquoises|pastels|neutrals|neons|brights)",
    "COUNT": r"(?:\d+\w*|one|two|three|four|five|several|some|many)",
    "MEDIA": r"(?:art|artwork|carving|collage|comic|drawing|engraving|etching|film|illustration|lithograph|painting"
    r"|photo|photograph|photography|poster|render|rendering|screenshot|sculpture|shot|sketch|still|tapestry|woodcut"
    r"|media|medium)s?",
    "SHOT": r"(?:shot|captured|taken|photographed|filmed|recorded|developed|scanned)",
    "CAMERA": r"(?:kodak|canon|nikon|fuji\w*|leica|hasselblad|sony|pentax|olympus|ilford|cinestill|mamiya|rollei\w*"
    r"|contax|zeiss|agfa\w*|lomo\w*|holga|gopro|iphone|polaroid)",
}


def _pattern(text: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """A pattern on the words of a sentence joined by spaces, commas among them; its group `gone` is what it marks."""
    for name, meaning in _PARTS.items():
        text = text.replace(f"<{name}>", meaning)
    return re.compile(text, flags)


IN_A_STYLE = _pattern(r"(?P<gone>\bin <ART>(?:(?!(?:in|on|at|with) )<WORD>(?: ,)? ){1,6}?<STYLES>)(?= |$)")
PATTERNS: dict[Strip, tuple[re.Pattern[str], ...]] = {
    Strip.style: (
        _pattern(
            r"(?P<gone>\b(?:in (?:the )?(?:style|manner|fashion|tradition|spirit) of|inspired by|reminiscent of"
            r"|typical of|recalling|reminding of|influenced by|based on the (?:style|work) of|(?:in )?homage to"
            r"|(?:resembl|imitat|mimick|emulat|echo|recall)ing) <PHRASE>)"
        ),
        _pattern(r"(?P<gone>\bstyle of <NAME>(?: <NAME>)*)(?= |$)", 0),
        IN_A_STYLE,
        _pattern(r"<BEGIN>(?P<gone><ART>(?:<WORD> ){1,4}(?:<STYLES>|inspired))<END>"),
        _pattern(r"(?P<gone>\b[\w']+-(?:style|styled|inspired|influenced|infused|esque|core)\b)"),
        _pattern(
            r"(?P<gone>\b(?!(?:organ|mechan|microorgan|tour|magnet|bapt)isms?\b|manticore|albacore|burlesque|arabesque)"
            r"\w{3,}(?:isms?|core|punk|esque)\b)"
        ),
        _pattern(r"<BEGIN>(?P<gone>(?:<WORD> )?style raw)<END>"),
        _pattern(r"(?P<gone>\b(?!(?:free|hair|life|turn)style)\w+style\b)"),
        _pattern(r"<BEGIN>(?P<gone>(?:<WORD> ){1,3}(?:quality|resolution))<END>"),
        _pattern(
            r"<BEGIN>(?P<gone><ART>(?!\w+ing )(?:<WORD> ){1,3}(?:era|period|movement|revival|school|dynasty))<END>"
        ),
        _pattern(r"(?P<gone>\b(?:\d{4}s|\d{1,2}(?:st|nd|rd|th)[- ]century|\d+-?bit|(?:circa|dated) \d{4})\b)"),
        _pattern(r"(?P<gone>\b[Bb]y <NAME>(?: (?:and |& )?<NAME>)*)(?= |$)", 0),
        _pattern(r"(?<=, )(?P<gone><NAME>(?: <NAME>){1,2})<END>", 0),
        _pattern(r"(?P<gone>\bfrom <ART>(?:<WORD> ){0,4}<BOOKS>)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:score[_ ]\d+(?:[_ ]up)?|(?:source|rating)[_ ]\w+|year \d{4}))<END>"),
    ),
    Strip.medium: (
        _pattern(r"<BEGIN>(?P<gone>(?:plate|fig|figure|pl)(?: \.)? [ivxlcdm\d]+)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:(?:first|second|third|final|only) state(?: of \w+)?|signed(?: <REST>)?))<END>"),
        _pattern(
            r"\b(?:draw\w*|paint\w*|made|sketch\w*|art|illustration|picture) (?P<gone>by <ART>(?:<WORD> )?"
            r"(?:child|children|artists?|students?|painter|engraver))(?= |$)"
        ),
        _pattern(r"<BEGIN>(?P<gone>(?:f ?/ ?[\d.]+|\d+ ?mm(?: (?:lens|film|photo\w*|f ?/ ?[\d.]+))*|iso ?\d+))<END>"),
        _pattern(
            r"(?P<gone>\b(?:made|crafted|built|sculpted|formed|folded|assembled) (?:entirely )?(?:out )?(?:of|from|in)"
            r" (?:<WORD> )?(?:wire|clay|felt|paper|cardboard|yarn|plasticine|lego|thread|beads|fabric))(?= |$)"
        ),
        _pattern(
            r"<BEGIN>(?P<gone>(?!an? \w+ \w+ing(?= ,|$))<ART>(?!\w+ing |martial |<COUNT> )"
            r"(?:(?!(?:an?|the|of|with|in|on) )<WORD> ){1,3}<MEDIA>)<END>"
        ),
        _pattern(r"(?P<gone>\b<SHOT> (?:on|with|using|through|via) (?:<CAMERA> )?<PHRASE>)"),
        _pattern(r"(?<=, )(?P<gone><CAMERA>(?: <WORD>){0,4})<END>"),
    ),
    Strip.technique: (
        _pattern(
            r"<BEGIN>(?P<gone>(?:with |using |in )?(?!<THINGS>)(?:(?!(?:an?|the|of|with|in) |<THINGS>)"
            r"<WORD> ){0,5}<LINES>(?: (?:and|on) <WORD>)?)<END>"
        ),
        _pattern(
            r"(?P<gone>\b(?:with|using|utili[sz]ing|employing|in|through|via|and) <ART>"
            r"(?:(?!(?:an?|the|of|on|at|with|in|and) |<THINGS>)<WORD> ){0,4}"
            r"<LINES>)(?= |$)"
        ),
        _pattern(
            r"(?P<gone>\b(?:in|with|using) <ART>(?:<WORD> ){0,3}"
            r"(?:shades|hues|tones|tints|palette|colou?r scheme) of <REST>)"
        ),
        _pattern(
            r"(?:<BEGIN>|\b(?=(?:with|in|using) ))(?P<gone>(?:(?:with|in|using) )?<ART>"
            r"(?:(?!(?:with|in|on|of|an?|the) )<WORD> ){0,3}<COLOURS>"
            r"(?:(?: ,| and| , and) (?:(?!and )<WORD> ){0,2}<COLOURS>){0,3})<END>"
        ),
        _pattern(r"(?P<gone>\b[\w']+-(?:toned|tinted|hued|shaded|rendered|painted|colou?red)\b)"),
        _pattern(r"<BEGIN>(?P<gone>(?:<WORD> ){1,2}theme)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:the |its |overall )+(?:<WORD> )?<LINES> (?:of [^,]*)?(?:is|are) <REST>)"),
    ),
    Strip.emotion: (
        _pattern(r"<BEGIN>(?P<gone>(?:with |in )?<ART>(?:<WORD> ){1,3}<MOODS>)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:and )?(?:the |its |overall )+<MOODS> (?:of [^,]*)?(?:is|feels) <REST>)"),
        _pattern(
            r"(?P<gone>\b(?:(?:that|which|and) )?(?:giv|lend|add|creat|evok|convey)\w* (?:an? <WORD> , )?[^,]*"
            r"\b<MOODS>\b <REST>)"
        ),
    ),
}
