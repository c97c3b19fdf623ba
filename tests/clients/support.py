"""A real server on a free port, for clients that are not written in Rust."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "target" / "clients"
EPOCHD = os.environ.get("EPOCHD", str(ROOT / "target" / "debug" / "epochd"))

CORNERS = [0, 0, 0, 1, 1, 0, 1, 1]
XOR = [0, 1, 1, 0]
XOR_NETWORK = {
    "input_width": 2,
    "layers": [
        {"units": 8, "activation": "ACTIVATION_TANH"},
        {"units": 1, "activation": "ACTIVATION_SIGMOID"},
    ],
}


class Server:
    """`epochd serve`, in memory, until the end of the `with` block."""

    def __init__(self, *arguments):
        command = [EPOCHD, "serve", "--listen", "127.0.0.1:0", "--ephemeral", "--log-format", "json", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            told = json.loads(line)
            if told["message"] == "serving":
                self.address = told["address"]
                # A log that nobody reads would stop the server once its pipe is full.
                self.reader = threading.Thread(target=self.process.stderr.read)
                self.reader.start()
                return
        raise RuntimeError("the server ended without serving")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        assert code == 0, f"the server ended with {code}"


def stubs():
    """The folder of Python stubs, made anew from the contract."""
    folder = HOME / "stubs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    protos = sorted(str(path) for path in (ROOT / "proto" / "epochd").rglob("*.proto"))
    command = ["python", "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto")]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}", *protos]
    subprocess.run(command, check=True)
    return str(folder)


def json_stream(text):
    """The JSON objects that stand one after another in a text."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def endless(model_id, rows=256):
    """A training that lasts until it is cancelled."""
    return {
        "model_id": model_id,
        "inputs": {"values": [index % 7 / 7 for index in range(2 * rows)]},
        "targets": {"values": [index % 2 for index in range(rows)]},
        "epochs": 1_000_000,
    }


def temporary_folder():
    return tempfile.TemporaryDirectory(prefix="epochd-")
