"""The matrix products of a training alone, by PyTorch: what no training on its library of linear algebra can be quicker than.

    python benches/peers/torch_products.py --workload W7_gemm --threads 2 --repeats 3

Prints one line of JSON. Results go where they went before, so nothing is allocated.
"""

from collections.abc import Callable

import torch
from workloads import Plan, Workload, arguments, report


def products(workload: Workload) -> list[Callable[[], torch.Tensor]]:
    """Those of one step of a full batch, in its order: forward, then each layer's gradients from the last one down."""
    torch.manual_seed(0)
    forward: list[Callable[[], torch.Tensor]] = []
    backward: list[Callable[[], torch.Tensor]] = []
    for layer, (inputs, units) in enumerate(workload.layers):
        x, w, delta = torch.rand(workload.batch, inputs), torch.rand(inputs, units), torch.rand(workload.batch, units)
        z, dw, dx = torch.empty(workload.batch, units), torch.empty(inputs, units), torch.empty(workload.batch, inputs)
        forward.append(lambda x=x, w=w, z=z: torch.mm(x, w, out=z))
        of_layer = [lambda x=x, delta=delta, dw=dw: torch.mm(x.t(), delta, out=dw)]
        if layer > 0:
            of_layer.append(lambda delta=delta, w=w, dx=dx: torch.mm(delta, w.t(), out=dx))
        backward = of_layer + backward
    return forward + backward


def epochs(plan: Plan, steps: int) -> Callable[[], float]:
    """A function that does the products of so many steps; there is no loss, so it returns 0."""
    all_products = products(plan.workload)

    def run() -> float:
        with torch.inference_mode():
            for _ in range(steps):
                for product in all_products:
                    product()
        return 0.0

    return run


def main() -> None:
    plan = arguments(__doc__)
    torch.set_num_threads(plan.threads)
    # Whole batches alone.
    workload, steps = plan.workload, plan.workload.rows // plan.workload.batch
    report("torch_products", torch.__version__, plan, epochs(plan, steps * workload.epochs), steps * workload.batch)


if __name__ == "__main__":
    main()
