"""scikit-learn's MLPClassifier and MLPRegressor; prints one line of JSON.

    python benches/peers/sklearn_peer.py --workload W3_digits --threads 1 --repeats 5

Its losses follow from the class: cross-entropy for the classifier, half the squared error for the regressor. A call of
`partial_fit` visits the rows once, in batches, so it is one epoch.
"""

from collections.abc import Callable

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits
from workloads import Plan, arguments, data, report


def training(plan: Plan) -> Callable[[], float]:
    """A function that trains the workload's epochs, and returns the loss of the last."""
    workload = plan.workload
    inputs, targets = data(workload)
    settings = {
        "hidden_layer_sizes": workload.widths[1:-1],
        "activation": workload.hidden,
        "alpha": 0.0,
        "solver": "adam" if workload.optimizer == "adam" else "sgd",
        "momentum": 0.9 if workload.optimizer == "momentum" else 0.0,
        "nesterovs_momentum": False,
        "learning_rate_init": workload.learning_rate,
        "batch_size": workload.batch,
        "shuffle": False,
        "random_state": 0,
    }
    is_regression = workload.loss == "squared"
    model = MLPRegressor(**settings) if is_regression else MLPClassifier(**settings)
    targets = targets.ravel() if is_regression else targets.ravel().astype(np.int64)
    classes = {} if is_regression else {"classes": np.arange(max(2, workload.widths[-1]))}

    def run() -> float:
        for _ in range(workload.epochs):
            model.partial_fit(inputs, targets, **classes)
        return float(model.loss_)

    return run


def main() -> None:
    plan = arguments(__doc__)
    with threadpool_limits(plan.threads):
        report("sklearn", sklearn.__version__, plan, training(plan))


if __name__ == "__main__":
    main()
