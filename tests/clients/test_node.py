"""Node with @grpc/grpc-js, as a program of its own."""

import os
import subprocess
import unittest
from pathlib import Path

from support import HOME, ROOT, Server


class Node(unittest.TestCase):
    def test_everything(self):
        program = Path(__file__).parent / "node" / "client.js"
        environment = {**os.environ, "NODE_HOME": str(HOME / "node")}
        with Server() as server:
            command = ["node", str(program), server.address, str(ROOT / "proto")]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
