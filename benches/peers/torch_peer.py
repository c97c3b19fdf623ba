"""PyTorch on the CPU, eager, with its fused optimizers; prints one line of JSON.

    python benches/peers/torch_peer.py --workload W3_digits --threads 1 --repeats 5

Its number of threads is a setting of the library's, which `--threads` sets.
"""

from collections.abc import Callable

import torch
from workloads import Plan, Workload, arguments, data, report

ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
LOSSES = {"softmax": torch.nn.CrossEntropyLoss, "sigmoid": torch.nn.BCEWithLogitsLoss, "squared": torch.nn.MSELoss}


def network(workload: Workload) -> torch.nn.Sequential:
    torch.manual_seed(0)
    modules: list[torch.nn.Module] = []
    for inputs, units in workload.layers:
        modules += [torch.nn.Linear(inputs, units), ACTIVATIONS[workload.hidden]()]
    return torch.nn.Sequential(*modules[:-1])


def optimizer(workload: Workload, model: torch.nn.Module) -> torch.optim.Optimizer:
    if workload.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=workload.learning_rate, fused=True)
    momentum = 0.9 if workload.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), lr=workload.learning_rate, momentum=momentum, fused=True)


def training(plan: Plan) -> Callable[[], float]:
    """A function that trains the workload's epochs, and returns the mean loss of the last."""
    workload = plan.workload
    inputs, targets = (torch.from_numpy(values) for values in data(workload))
    model = network(workload)
    loss_function, steps = LOSSES[workload.loss](), optimizer(workload, model)

    def epoch() -> float:
        total = torch.zeros(())
        for first in range(0, workload.rows, workload.batch):
            rows = slice(first, first + workload.batch)
            steps.zero_grad(set_to_none=True)
            loss = loss_function(model(inputs[rows]), targets[rows])
            loss.backward()
            steps.step()
            total += loss.detach() * len(inputs[rows])
        return float(total) / workload.rows

    return lambda: [epoch() for _ in range(workload.epochs)][-1]


def main() -> None:
    plan = arguments(__doc__)
    torch.set_num_threads(plan.threads)
    report("torch", torch.__version__, plan, training(plan))


if __name__ == "__main__":
    main()
