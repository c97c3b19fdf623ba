"""grpcurl 1.8, which knows the service by reflection v1alpha alone, and `buf curl`, which asks for v1."""

import json
import subprocess
import unittest

from support import CORNERS, HOME, ROOT, XOR, XOR_NETWORK, Server, endless, json_stream

BUF = HOME / "node" / "node_modules" / ".bin" / "buf"


class Caller:
    """Calls by a command line; the answer, or the error as text."""

    def __init__(self, command, path):
        self.command, self.path = command, path

    def run(self, method, request):
        command = [*self.command, json.dumps(request), *self.path(method)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def ask(self, method, request):
        done = self.run(method, request)
        assert done.returncode == 0, done.stderr
        return json_stream(done.stdout)

    def refused(self, method, request):
        done = self.run(method, request)
        assert done.returncode != 0, done.stdout
        return done.stderr + done.stdout


def grpcurl(address):
    return Caller(["grpcurl", "-plaintext", "-d"], lambda method: [address, method])


def buf(address):
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d"]
    return Caller(command, lambda method: [f"http://{address}/{method}"])


class Terminal(unittest.TestCase):
    def go_through(self, caller, name):
        models, jobs = "epochd.v1.ModelService/", "epochd.v1.JobService/"
        request = {"model_id": name, "architecture": XOR_NETWORK, "seed": "7"}
        (model,) = caller.ask(models + "CreateModel", request)
        self.assertEqual(model["modelId"], name)

        training = {"model_id": name, "inputs": {"values": CORNERS}, "targets": {"values": XOR}}
        events = caller.ask(models + "Train", training)
        epochs = [report["epoch"] for event in events for report in event.get("epochs", {}).get("reports", [])]
        self.assertEqual(epochs, list(range(1, 2001)))
        self.assertEqual(events[-1]["finished"]["state"], "JOB_STATE_SUCCEEDED")

        (answer,) = caller.ask(models + "Predict", {"model_id": name, "inputs": {"values": CORNERS}})
        self.assertEqual([row["index"] for row in answer["classes"]], XOR)
        (weights,) = caller.ask(models + "GetWeights", {"model_id": name})
        self.assertEqual(len(weights["layers"][0]["weights"]["values"]), 16)

        # A job of a client that went away; cancelled by its id.
        process = subprocess.Popen(
            [*caller.command, json.dumps(endless(name)), *caller.path(models + "Train")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        running = []
        while not running or "lastReport" not in running[0]:
            (listed,) = caller.ask(jobs + "ListJobs", {"model_id": name, "state": "JOB_STATE_RUNNING"})
            running = listed.get("jobs", [])
        process.kill()
        process.wait()
        job_id = running[0]["jobId"]
        (job,) = caller.ask(jobs + "CancelJob", {"job_id": job_id, "commit": True})
        self.assertEqual((job["state"], job["version"]), ("JOB_STATE_CANCELLED", 3))

        refusal = caller.refused(models + "Predict", {"model_id": name, "inputs": {"values": [1]}})
        self.assertIn("inputs", refusal)
        self.assertIn("nobody", caller.refused(models + "GetModel", {"model_id": "nobody"}))

    def test_grpcurl(self):
        with Server() as server:
            self.go_through(grpcurl(server.address), "by-grpcurl")

    def test_buf_curl(self):
        with Server() as server:
            self.go_through(buf(server.address), "by-buf")

    def test_reflection_lists_and_describes_everything(self):
        with Server() as server:
            def told(*arguments):
                command = ["grpcurl", "-plaintext", server.address, *arguments]
                return subprocess.run(command, capture_output=True, text=True, check=True).stdout

            services = told("list").split()
            self.assertEqual(
                services,
                [
                    "epochd.v1.AdminService",
                    "epochd.v1.JobService",
                    "epochd.v1.ModelService",
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                ],
            )
            for service in services:
                self.assertIn("rpc ", told("describe", service))
            # Comments come along, with the defaults in them.
            request = told("describe", "epochd.v1.TrainRequest")
            for default in ["Default: 32", "max(20", "Adam"]:
                self.assertIn(default, request)


class Contract(unittest.TestCase):
    def buf(self, *arguments):
        done = subprocess.run([str(BUF), *arguments], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_lint(self):
        self.buf("lint")

    def test_nothing_breaks_what_the_last_commit_had(self):
        """Against the commit before this one on the main branch that had a contract; a first commit has nothing to break."""
        def git(*arguments):
            return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

        before = git("rev-list", "-1", "HEAD~1", "--", "buf.yaml")
        if not before:
            self.skipTest("no earlier commit has the contract")
        self.buf("breaking", "--against", f".git#ref={before}")


if __name__ == "__main__":
    unittest.main()
