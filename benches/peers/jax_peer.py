"""JAX on the CPU, a whole run compiled: one jitted `lax.scan` over epochs and batches, so that no Python runs between steps.
Prints one line of JSON.

    taskset -c 0 python benches/peers/jax_peer.py --workload W3_digits --threads 1 --repeats 5

XLA takes as many threads as it may use processors: taskset says how many. Rows that do not fill the last batch are left out, since
a scan needs equal shapes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from workloads import Plan, Workload, arguments, data, report

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
Parameters = list[tuple[jax.Array, jax.Array]]


def initial_parameters(workload: Workload) -> Parameters:
    keys = jax.random.split(jax.random.PRNGKey(0), len(workload.layers))
    return [
        (jax.random.normal(key, (inputs, units)) * (2.0 / inputs) ** 0.5, jnp.zeros(units))
        for key, (inputs, units) in zip(keys, workload.layers, strict=True)
    ]


def optimizer(workload: Workload) -> optax.GradientTransformation:
    if workload.optimizer == "adam":
        return optax.adam(workload.learning_rate)
    return optax.sgd(workload.learning_rate, momentum=0.9 if workload.optimizer == "momentum" else None)


def mean_loss(workload: Workload, parameters: Parameters, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    for weights, bias in parameters[:-1]:
        inputs = ACTIVATIONS[workload.hidden](inputs @ weights + bias)
    weights, bias = parameters[-1]
    outputs = inputs @ weights + bias
    if workload.loss == "softmax":
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    if workload.loss == "sigmoid":
        return optax.sigmoid_binary_cross_entropy(outputs, targets).mean()
    return ((outputs - targets) ** 2).mean()


def compiled_run(workload: Workload, batches: tuple[jax.Array, jax.Array]) -> Callable[..., Any]:
    """(parameters, the optimizer's state) → (the same after the workload's epochs, the mean loss of each epoch)."""
    steps = optimizer(workload)

    def step(carry: Any, batch: Any) -> Any:
        parameters, state = carry
        loss, gradients = jax.value_and_grad(lambda it: mean_loss(workload, it, *batch))(parameters)
        updates, state = steps.update(gradients, state, parameters)
        return (optax.apply_updates(parameters, updates), state), loss

    def epoch(carry: Any, _: None) -> Any:
        carry, losses = jax.lax.scan(step, carry, batches)
        return carry, losses.mean()

    return jax.jit(lambda carry: jax.lax.scan(epoch, carry, None, length=workload.epochs))


def training(plan: Plan) -> tuple[Callable[[], float], int]:
    """A function that trains the workload's epochs and returns the mean loss of the last, and how many rows an epoch visits."""
    workload = plan.workload
    inputs, targets = data(workload)
    count = workload.rows // workload.batch
    rows = count * workload.batch
    batched = [jnp.asarray(it[:rows]).reshape(count, workload.batch, *it.shape[1:]) for it in (inputs, targets)]
    parameters = initial_parameters(workload)
    carry = (parameters, optimizer(workload).init(parameters))
    function = compiled_run(workload, (batched[0], batched[1]))

    def run() -> float:
        nonlocal carry
        carry, losses = jax.block_until_ready(function(carry))
        return float(losses[-1])

    return run, rows


def main() -> None:
    plan = arguments(__doc__)
    run, rows = training(plan)
    report("jax", jax.__version__, plan, run, rows)


if __name__ == "__main__":
    main()
