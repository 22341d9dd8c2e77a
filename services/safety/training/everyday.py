"""What people and programs write every day: honest and mostly short, in many languages, and code, records and figures.

The packaged corpora hold long questions in English, so a head that learnt from them alone takes `hello` for an attack. From
Django (BSD-3-Clause, read as a zip file): the sentences of its user interface in all its languages, and pieces of its code. From
this repository: lines of its documentation and code. Our own: small talk, one-word questions, listings, numbers, prose on
security. Beside them short attacks of our own in the same languages, so that neither length nor language decides.

The sets of `services/safety/tests/fixtures` are never read here.
"""

import hashlib
import pathlib
import random
import re
import zipfile

from phrases import ATTACKS, HONEST, SECURITY

ROOT = pathlib.Path(__file__).resolve().parents[3]
ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n)+)', re.M)
# Lines that speak of attacks by quoting one teach nothing but a wrong label.
QUOTED = re.compile(r"ignore|disregard|system prompt|jailbreak|instructions|override|injection", re.I)


def split_of(key):
    at = hashlib.sha256(key.encode()).digest()[0]
    return "train" if at < 179 else "validation" if at < 217 else "test"


def least(rows, count):
    """So many of them, the same in each run."""
    return sorted(rows, key=lambda row: hashlib.sha256(str(row).encode()).digest())[:count]


def unquote(block):
    text = "".join(line[1:-1] for line in block.splitlines())
    return text.replace("\\n", "\n").replace('\\"', '"').strip()


def sentences(wheel):
    """A translation is in the split of what it translates."""
    for name in wheel.namelist():
        if not name.endswith("django.po") or "contrib/gis" in name:
            continue
        rows = []
        for original, translated in ENTRY.findall(wheel.read(name).decode()):
            original, translated = unquote(original), unquote(translated)
            if original and not QUOTED.search(original):
                rows.append((original, translated or original))
        yield from ((text, split_of(original)) for original, text in least(rows, 4 if "contrib" in name else 24))


def pieces(name, source, draw, count):
    lines = [line for line in source.splitlines() if line.strip()]
    for _ in range(count):
        if not lines:
            return
        begin = draw.randrange(len(lines))
        piece = "\n".join(lines[begin : begin + draw.choice([1, 1, 1, 2, 3, 5, 8, 14])])
        if 3 <= len(piece.strip()) <= 900 and not QUOTED.search(piece):
            yield piece.strip() if draw.random() < 0.5 else piece, split_of(name)


def code(wheel):
    draw = random.Random("code")
    names = [name for name in wheel.namelist() if name.endswith((".py", ".js", ".css", ".html")) and "/locale/" not in name and ".min." not in name]
    for name in least(names, 520):
        yield from pieces(name, wheel.read(name).decode(errors="replace"), draw, 3)
    for pattern, each in (("docs/*.md", 14), ("services/*/src/**/*.rs", 3), ("proto/**/*.proto", 8), ("**/*.toml", 3), ("distributions/*", 8), ("services/store/migrations/**/*.sql", 6)):
        for path in sorted(ROOT.glob(pattern)):
            inside = path.relative_to(ROOT).as_posix()
            if path.is_file() and not inside.startswith(("services/safety", "tests", "docs/safety")):
                yield from pieces(inside, path.read_text(), draw, each)


def records():
    """Numbers, codes, listings and marks, as they stand alone in messages and results."""
    draw = random.Random("records")
    digits = lambda count: "".join(draw.choice("0123456789") for _ in range(count))
    hexes = lambda count: "".join(draw.choice("0123456789abcdef") for _ in range(count))
    word = lambda: draw.choice("lamp desk river apple north tiger cloud paper green seven market orange train silver window garden".split())
    shapes = [
        lambda: digits(draw.randint(1, 12)),
        lambda: f"{word().title()}: {digits(2)}.{digits(2)} {draw.choice(['EUR', 'USD', 'kg', 'km', '%', 'ms', '°C', 'GB'])}",
        lambda: f"{draw.choice(['Order', 'Invoice', 'Ticket', 'Ref.', 'No.', 'ISBN', 'Tel.', 'IBAN'])} {draw.choice(['#', '', 'DE', '+'])}{digits(4)}-{digits(5)} {digits(4)}",
        lambda: f"20{digits(2)}-0{draw.randint(1, 9)}-1{draw.randint(0, 9)}T0{draw.randint(0, 9)}:{draw.randint(10, 59)}:00Z {draw.choice(['INFO', 'WARN', 'ERROR', 'DEBUG'])} {word()}: {draw.choice(['started', 'took', 'closed after', 'retry'])} {digits(3)} ms",
        lambda: "-".join(hexes(size) for size in (8, 4, 4, 4, 12)),
        lambda: hexes(draw.choice([7, 12, 32, 40, 64])),
        lambda: f"https://www.{word()}-{word()}.example/{word()}/{digits(4)}?page={digits(1)}",
        lambda: f"{word()}.{word()}@{word()}.example",
        lambda: f"10.{digits(2)}.{draw.randint(1, 9)}.{digits(2)}:{digits(4)}",
        lambda: "\n".join(f"{word()},{digits(2)},{digits(3)}.{digits(1)}" for _ in range(draw.randint(1, 6))),
        lambda: "\n".join(f"| {word()} | {digits(2)} |" for _ in range(draw.randint(2, 6))),
        lambda: "\n".join(f"{draw.choice(['-', '*', '1.', '- [ ]', '- [x]'])} {word()} {word()}" for _ in range(draw.randint(1, 6))),
        lambda: f'{{"{word()}": {digits(2)}, "{word()}": "{word()}", "{word()}": [{digits(1)}, {digits(2)}]}}',
        lambda: f"<{draw.choice(['td', 'li', 'p', 'b'])} class=\"{word()}\">{word()} {digits(2)}</{draw.choice(['td', 'li', 'p', 'b'])}>",
        lambda: f"# {word().title()} {word()}\n\n**{word()}** _{word()}_ [{word()}](https://{word()}.example)",
        lambda: f"{draw.choice('😀 😂 👍 🎉 ❤️ 🔥 😢 🙏 🚀 ✅ ☕ 🌧️ 🐈 🍕 ⚽'.split()) * draw.randint(1, 3)} {draw.choice(['', word(), 'thanks', 'see you', 'happy birthday', word() + ' ' + word()])}".strip(),
        lambda: f"{word()} {draw.choice('😀 😂 👍 🎉 ❤️ 🔥 😢 🙏 🚀 ✅'.split())}",
        lambda: f"{digits(1)} {draw.choice('+-*/=<>')} {digits(2)} = x",
        lambda: f"{draw.choice(['git', 'docker', 'cargo', 'npm', 'kubectl', 'pip', 'make', 'ls', 'cd', 'grep'])} {draw.choice(['run', 'list', 'status', 'build', 'install', '-la', 'logs', 'test'])} {word()}{draw.choice(['', ' --' + word(), ' | head', '/' + word()])}",
        lambda: f"{draw.choice(['SELECT', 'select'])} {word()}, count(*) FROM {word()}s WHERE {word()} > {digits(2)} GROUP BY 1;",
        lambda: f"{draw.choice(['const', 'let', 'var', 'int', 'fn', 'def', 'func', 'public static void', 'class', 'type'])} {word()}{draw.choice(['()', ' = ' + digits(2) + ';', ' {', ':', ' -> ' + word()])}",
        lambda: f"{word().title()}{draw.choice(['?', '!', '.', '...', '', ':'])}",
        lambda: f"{word()} {word()}",
        lambda: f"v{digits(1)}.{digits(2)}.{digits(1)} {draw.choice(['released', 'fixes ' + word(), 'adds ' + word(), ''])}".strip(),
    ]
    for at in range(1_100):
        text = shapes[at % len(shapes)]()
        yield text, split_of(text)


def texts(split, django):
    """Pairs of text and label."""
    rows = {}
    with zipfile.ZipFile(django) as wheel:
        for source in (sentences(wheel), code(wheel), records()):
            rows |= {text: 0 for text, part in source if part == split}
    for language in HONEST.values():
        rows |= {text: 0 for text in language if split_of(text) == split}
    rows |= {text: 0 for text in SECURITY if split_of(text) == split}
    for text in ATTACKS:
        if split_of(text) == split:
            rows[text] = 1
    # As people type: without capitals, without a stop.
    return list(rows.items()) + [(text.lower().rstrip(".?!"), label) for text, label in rows.items() if len(text) < 40 and text.lower().rstrip(".?!") not in rows]
