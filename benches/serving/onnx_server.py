"""ONNX Runtime behind grpcio: one method, whose messages are the bytes of float32 rows and nothing else, as quick as it goes.

    python onnx_server.py ADDRESS FILE THREADS
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime


def main() -> None:
    address, file, threads = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    # A single row has no work for a second thread.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name, probabilities = session.get_inputs()[0].name, session.get_outputs()[-1].name

    def predict(message: bytes, _context: grpc.ServicerContext) -> bytes:
        rows = np.frombuffer(message, dtype=np.float32).reshape(-1, 64)
        return bytes(session.run([probabilities], {name: rows})[0].astype(np.float32).tobytes())

    server = grpc.server(ThreadPoolExecutor(max_workers=int(threads)))
    method = grpc.unary_unary_rpc_method_handler(predict)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Onnx", {"Predict": method})])
    if server.add_insecure_port(address) == 0:
        sys.exit(f"{address} is taken")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
