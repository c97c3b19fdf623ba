"""Every command of the README, as it stands there, in its order, in a folder that holds what a clone holds.

A block that a comment marks `<!-- not run: reason -->` is left out. Cargo is told where the package is, else it would build it anew
for each folder.
"""

import os
import re
import shutil
import socket
import subprocess
import time
import unittest
from pathlib import Path

from support import HOME, ROOT, json_stream, temporary_folder

# What the README says to save, by the language of the block.
FILES = {"python": "client.py", "js": "client.js"}
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n\n?)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


def blocks():
    return [(it["kind"], it["text"], it["reason"]) for it in BLOCK.finditer((ROOT / "README.md").read_text())]


def wait_for_server():
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 50051)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("no server listens on port 50051")


class Readme(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(temporary_folder()))
        for name in ROOT.iterdir():
            if name.name not in {".git", ".venv", "epochd-data"}:
                (self.folder / name.name).symlink_to(name)
        (self.folder / "node_modules").symlink_to(HOME / "node" / "node_modules")
        tools = Path(self.enterContext(temporary_folder()))
        cargo = tools / "cargo"
        cargo.write_text(f'#!/bin/sh\nname=$1\nshift\nexec "{shutil.which("cargo")}" "$name" --manifest-path "{ROOT}/Cargo.toml" "$@"\n')
        cargo.chmod(0o755)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("EPOCHD")}
        self.environment["PATH"] = f"{tools}:{self.environment['PATH']}"

    def run_block(self, text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=1200,
        )
        self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_every_block_works_as_it_stands(self):
        said, servers = {}, []
        try:
            for kind, text, reason in blocks():
                if kind in FILES:
                    (self.folder / FILES[kind]).write_text(text)
                if kind != "sh" or reason:
                    continue
                if text.strip().endswith("epochd serve"):
                    command = text.split()
                    server = subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL)
                    servers.append(server)
                    wait_for_server()
                else:
                    said[text.strip()] = self.run_block(text)
        finally:
            for server in servers:
                server.terminate()
                self.assertEqual(server.wait(), 0)
        self.check(said)

    def check(self, said):
        def of(part):
            (found,) = [output for text, output in said.items() if part in text]
            return found

        def all_of(part):
            return [json_stream(output) for text, output in said.items() if part in text and '"xor"' in text]

        self.assertIn("Held-out accuracy: 0.9", of("cargo run --release -- train"))
        self.assertIn("f1_macro", of("--metric f1_macro"))
        trainings = all_of("ModelService/Train")
        self.assertEqual(len(trainings), 2)
        for events in trainings:
            epochs = [report["epoch"] for event in events for report in event.get("epochs", {}).get("reports", [])]
            self.assertEqual(epochs, [500, 1000, 1500, 2000])
        plain, featured = all_of("ModelService/Predict")
        for answer in (plain, featured):
            self.assertEqual(answer[0]["classes"][0]["index"], 1)
        self.assertEqual(len(featured[0]["layers"][0]["values"]["values"]), 8)
        self.assertEqual(len(json_stream(of("GetWeights"))[0]["layers"]), 2)
        self.assertTrue(of("client.py").rstrip().endswith("classes [0, 1, 1, 0]"))
        self.assertTrue(of("client.js").rstrip().endswith("classes [ 0, 1, 1, 0 ]"))

    def test_what_the_first_command_prints_is_what_the_readme_shows(self):
        """And the two lines that it tells to paste work when pasted."""
        output = self.run_block("cargo run --quiet --release -- train examples/data/iris.csv --target species")
        (shown,) = [text for kind, text, _ in blocks() if kind == "text" and "Held-out" in text]
        self.assertIn("Held-out accuracy", shown)
        for line in shown.splitlines():
            if line.startswith(("class", "The model is")):
                self.assertIn(line, output)
        serve, ask = [line.strip() for line in output.splitlines() if line.startswith("  ")]
        server = subprocess.Popen(serve.split(), cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL)
        try:
            wait_for_server()
            self.assertIn('"setosa"', self.run_block(ask))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    unittest.main()
