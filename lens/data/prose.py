"""What ordinary text does the model read beside its facts?

A paragraph is one scene of `data/world/prose.json`: a sequence of beats, of each of which one
template is drawn and filled.  Persons, places and things are bound once per paragraph, so the
same names, objects and pronouns return, as in

    paragraph = beat_1 beat_2 ... beat_k,   beat_i ~ Uniform(alternatives_i),   3 <= sentences <= 7

The template language (also stated in the file under "syntax"):

    [x|y|z]    one of the alternatives, free each time; alternatives nest
    {fruit}    a word of the class `fruit`, or the scene's own bound thing of that name
    {fruit.pl} another form: `pl` of a noun, `past` and `ing` of a verb
    {A} {A?}   the person A by name; by name or by pronoun.  {A.he} {A.him} {A.his} {A.himself}
    @ word     "a word" or "an word", whichever is right
    ~text      text, sometimes after a connective from the class `then`

Only `random.Random(seed).random()` is drawn from: its stream is the same on every platform.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from lens.data.articles import indefinite
from lens.data.manifest import whole
from lens.data.paths import world

SENTENCES = range(3, 8)
WORDS = range(30, 111)
OPTIONAL = 0.5  # how often an optional beat is told
CONNECTIVE = 0.35  # how often a `~` template gets its connective
PRONOUN = 0.6  # how often {A?} is a pronoun, once A is known

_TOKEN = re.compile(r"[\[\]|]|\{[^}]*\}|[^\[\]|{]+")
_ARTICLE = re.compile(r"@ (\w+)")
_START = re.compile(r'(^"?|\n"?|[.?!] "?|[.?!]" "|\." )([a-z])')
_END = re.compile(r'[.?!]"?(?= ["A-Z0-9]|$)')
_PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


def compile_template(text: str) -> list:
    """Parse a template into nodes: a string, ("slot", name, form), or ("either", [nodes, ...])."""
    stack: list[list[list]] = [[[]]]
    for token in _TOKEN.findall(text):
        if token == "[":
            stack.append([[]])
        elif token == "|" and len(stack) > 1:
            stack[-1].append([])
        elif token == "]" and len(stack) > 1:
            options = stack.pop()
            stack[-1][-1].append(("either", options))
        elif token[0] == "{":
            name, _, form = token[1:-1].partition(".")
            stack[-1][-1].append(("slot", name, form))
        else:
            stack[-1][-1].append(token)
    if len(stack) != 1:
        raise ValueError(f"unclosed '[' in template {text!r}; expected a ']' for every '['")
    return stack[0][0]


def plural(noun: str) -> str:
    """Return the regular plural of an English noun.

    >>> plural("berry"), plural("box"), plural("day")
    ('berries', 'boxes', 'days')
    """
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


class Story:
    """One paragraph in the making: who and what is bound, who is already known, what was used."""

    def __init__(self, world: "World", rng: random.Random):
        self.world, self.draw = world, rng.random
        self.bound: dict[str, dict] = {}
        self.known: set[str] = set()
        self.used: set[str] = set()

    def choose(self, options):
        """Return one element of a list, uniformly."""
        return options[int(self.draw() * len(options))]

    def word(self, name: str) -> dict:
        """Return an entry of class `name` with its forms, preferring one not yet used here."""
        entries = self.world.words.get(name)
        if entries is None:
            raise KeyError(f"no class, person or bound thing {name!r}; add it under 'words'")
        for _ in range(6):
            entry = self.choose(entries)
            if entry["key"] not in self.used:
                break
        self.used.add(entry["key"])
        if "takes" not in entry:
            return entry
        thing = self.say([("slot", entry["takes"], "")])
        return {form: f"{verb} the {thing}" for form, verb in entry["forms"].items()}

    def cast(self, role: str, owner: str) -> None:
        """Bind a person; the second person has the other pronoun, so that "he" is never two."""
        taken = [p["sex"] for p in self.bound.values() if "sex" in p]
        sex = ("he" if taken[0] == "she" else "she") if taken else self.choose(("she", "he"))
        name = self.choose(self.world.names[sex])
        self.bound[role] = {"sex": sex, "name": name, "owner": owner}

    def person(self, role: str, form: str) -> str:
        """Return a mention of a person; the first one says who it is."""
        who = self.bound[role.rstrip("?")]
        if role[0] not in self.known:
            self.known.add(role[0])
            owner, name = who["owner"], who["name"]
            if owner:
                mine = "my" if owner == "I" else self.person(owner, "his")
                name = f"{mine} {self.say([('slot', 'kin_' + who['sex'], '')])} {name}"
            return name + "'s" if form == "his" else name
        if not form:
            if role[-1] != "?" or self.draw() > PRONOUN:
                return who["name"]
            form = "he"
        return _PRONOUNS[who["sex"]][form]

    def say(self, nodes: list) -> str:
        """Fill a compiled template."""
        out = []
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif node[0] == "either":
                out.append(self.say(self.choose(node[1])))
            elif node[1][0] in "AB" and len(node[1].rstrip("?")) == 1:
                out.append(self.person(node[1], node[2]))
            else:
                entry = self.bound.get(node[1]) or self.word(node[1])
                value = entry[node[2]]
                out.append(value if isinstance(value, str) else self.say(value))
        return "".join(out)

    def tell(self, scene: dict) -> str:
        """Tell one scene: bind its persons and things, then one template per beat."""
        for role, owner in scene["who"].items():
            self.cast(role, owner)
        for name, source in scene["bind"].items():
            self.bound[name] = self.freeze(self.word(source))
        parts = []
        for optional, templates in scene["beats"]:
            if optional and self.draw() > OPTIONAL:
                continue
            text = self.say(self.choose(templates))
            if text[0] == "~":
                text = text[1:]
                if parts and self.draw() < CONNECTIVE:
                    text = f"{self.say([('slot', 'then', '')])}, {text}"
            parts.append(text)
        return finish("\n".join(parts))

    def freeze(self, entry: dict) -> dict:
        """Fill the forms of a bound entry once, so that every later mention agrees."""
        return {k: v if isinstance(v, str) else self.say(v) for k, v in entry.items()}


def finish(text: str) -> str:
    """Set the articles and the capitals; a newline marks the border of two beats.

    >>> finish('@ owl sat on @ branch. it slept.')
    'An owl sat on a branch. It slept.'
    """
    text = _ARTICLE.sub(lambda m: f"{indefinite(m[1])} {m[1]}", text)
    return _START.sub(lambda m: m[1] + m[2].upper(), text).replace("\n", " ")


class World:
    """The lexicon and the scenes of `prose.json`, compiled."""

    def __init__(self, path: Path):
        data = json.loads(path.read_text(encoding="utf-8"))
        self.names: dict[str, list[str]] = data["names"]
        self.words = {name: [entry_of(text) for text in entries] for name, entries in data["words"].items()}
        self.scenes: list[dict] = data["scenes"]
        for scene in self.scenes:
            scene["beats"] = [(beat["optional"], [compile_template(t) for t in beat["say"]]) for beat in scene["beats"]]


def entry_of(text: str) -> dict:
    """Read a lexicon entry: "cup", "loaf/loaves", or the verb "eat/ate/eating + food"."""
    text, _, takes = text.partition(" + ")
    forms = text.split("/")
    if takes:
        return {"key": text, "takes": takes, "forms": dict(zip(("", "past", "ing"), forms))}
    if len(forms) == 3:
        return {"key": text, **dict(zip(("", "past", "ing"), forms))}
    if any(mark in text for mark in "[{"):
        return {"key": text, "": compile_template(text)}
    return {"key": text, "": forms[0], "pl": forms[-1] if len(forms) == 2 else plural(text)}


def paragraphs(seed: int, count: int) -> Iterator[str]:
    """Yield `count` paragraphs of ordinary English, the same for the same seed everywhere.

    seed: any int; count: how many.
    Each paragraph is one line of 3 to 7 sentences and 30 to 110 words.
    Raises KeyError if a template names a class that the lexicon lacks.

    >>> first, second = paragraphs(seed=0, count=2)
    >>> first == next(paragraphs(seed=0, count=1))
    True
    """
    told, rng = World(whole(world() / "prose.json")), random.Random(seed)
    while count > 0:
        scene = told.scenes[int(rng.random() * len(told.scenes))]
        text = Story(told, rng).tell(scene)
        if len(text.split()) in WORDS and len(_END.findall(text)) in SENTENCES:
            count -= 1
            yield text
