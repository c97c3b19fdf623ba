"""Every lesson of the course: its page holds the whole script, and shows what the script prints and draws.

A page's blocks of one language, one after another, are the lesson's script in that language; the ```text blocks after them are what it
prints. Words must be the same, numbers within 2 % or one unit of the last decimal shown; in a block that is marked `measured`, words
only.
"""

import ast
import os
import re
import subprocess
import unittest
from pathlib import Path

from support import ROOT, Server, temporary_folder

COURSE = ROOT / "examples" / "course"
PAGES = sorted((ROOT / "docs" / "course").glob("[0-9]*.md"))
BLOCK = re.compile(r"^```(\w+)( measured)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
SUFFIXES = {"python": ".py", "sh": ".sh", "rust": ".rs"}
RELATIVE = 0.02


def parts(page):
    """The scripts on a page by language, and for each the lines that it shows and whether they are measured."""
    scripts, shown, language = {}, {}, None
    for kind, measured, text in BLOCK.findall(page.read_text()):
        if kind in SUFFIXES:
            language = kind
            scripts[kind] = scripts.get(kind, "") + text
            shown.setdefault(kind, [])
        elif kind == "text":
            shown[language] += [(line, bool(measured)) for line in text.splitlines()]
    return scripts, shown


def body(file):
    """A script without what introduces it."""
    text = file.read_text()
    if file.suffix == ".py":
        return "\n".join(text.splitlines()[ast.parse(text).body[0].end_lineno:])
    introduction = {".sh": "#", ".rs": "//!"}[file.suffix]
    lines = text.splitlines()
    while lines and lines[0].startswith(introduction):
        lines.pop(0)
    return "\n".join(lines)


def code_lines(text):
    return [line for line in text.splitlines() if line.strip()]


def command(file):
    """How a lesson is run."""
    if file.suffix == ".rs":
        return ["cargo", "run", "--quiet", "--locked", "--example", file.stem]
    return ["python" if file.suffix == ".py" else "bash", str(file)]


def is_close(shown, said):
    mantissa, _, exponent = shown.partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 1.001 * 10.0 ** (int(exponent or 0) - decimals) if decimals else 0
    shown, said = (float(it.replace("−", "-")) for it in (shown, said))
    return abs(shown - said) <= max(RELATIVE * abs(shown), unit)


class Course(unittest.TestCase):
    maxDiff = None

    def check_lesson(self, page):
        scripts, shown = parts(page)
        pictures = set(re.findall(r"\(pictures/([^)]+)\)", page.read_text()))
        files = {kind: COURSE / (page.stem + suffix) for kind, suffix in SUFFIXES.items()}
        self.assertEqual([kind for kind, file in files.items() if file.exists()], list(scripts))
        folder = Path(self.enterContext(temporary_folder()))
        server = self.enterContext(Server())
        for kind, script in scripts.items():
            self.assertEqual(code_lines(script), code_lines(body(files[kind])), "the page and the script differ")
            said = self.run_script(command(files[kind]), server.address, folder)
            self.compare(shown[kind], said.splitlines())
        self.assertEqual({file.name for file in folder.iterdir()}, pictures, "drawn, and shown on the page")
        for picture in pictures:
            self.assertTrue((page.parent / "pictures" / picture).is_file(), f"{picture} is not beside the page")

    def run_script(self, command, address, pictures):
        environment = os.environ | {"EPOCHD_SERVER": address, "COURSE_PICTURES": str(pictures)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def compare(self, shown, said):
        words = [NUMBER.sub("#", line.rstrip()) for line, _ in shown]
        self.assertEqual(words, [NUMBER.sub("#", line.rstrip()) for line in said], "what is shown, and what was said")
        for (line, is_measured), other in zip(shown, said):
            pairs = zip(NUMBER.findall(line), NUMBER.findall(other))
            self.assertTrue(is_measured or all(is_close(*pair) for pair in pairs), f"shown {line!r}, said {other!r}")

    def test_there_are_nine_lessons_and_each_picture_is_of_one(self):
        self.assertEqual([page.name[:2] for page in PAGES], [f"0{number}" for number in range(1, 10)])
        self.assertEqual({file.stem for file in COURSE.glob("0*")}, {page.stem for page in PAGES})
        shown = set(re.findall(r"\(pictures/([^)]+)\)", "".join(page.read_text() for page in PAGES)))
        self.assertEqual({file.name for file in (ROOT / "docs" / "course" / "pictures").iterdir()}, shown)

    def test_formulas_use_what_github_renders(self):
        for page in PAGES:
            refused = re.findall(r"\\(?:operatorname|mbox|phantom|newcommand|def)\b", page.read_text())
            self.assertEqual(refused, [], f"{page.name}: GitHub refuses these macros")

    def test_links_between_the_pages_lead_somewhere(self):
        for page in (ROOT / "docs" / "course").glob("*.md"):
            prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
            for link in re.findall(r"\]\(([^)#:]+)\)", prose):
                self.assertTrue((page.parent / link).exists(), f"{page.name}: {link}")


def lesson(page):
    def test(self):
        self.check_lesson(page)

    return test


for page in PAGES:
    setattr(Course, f"test_lesson_{page.stem}", lesson(page))


if __name__ == "__main__":
    unittest.main()
