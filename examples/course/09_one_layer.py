"""Lesson 9: old friends are one-layer networks. The page is docs/course/09_one_layer.md."""

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.svm import SVC, LinearSVC

from course import ROOT, create, figure, get_weights, gradients, predict, save, train

table = np.loadtxt(ROOT / "examples" / "data" / "iris.csv", delimiter=",", skiprows=1, dtype=str)
flowers = table[:, :4].astype(float)
names, species = np.unique(table[:, 4], return_inverse=True)


def one_layer(inputs, targets, activation="IDENTITY", units=1, bias=True, **options):
    """W and b of one layer, trained from 0: by L-BFGS, unless the options say otherwise."""
    layer = {"units": units, "activation": f"ACTIVATION_{activation}", "bias": bias}
    model = create(inputs.shape[1], [layer | {"initializer": {"zeros": {}}}])
    lbfgs = {"lbfgs": {"tolerance_gradient": 1e-9, "tolerance_change": 1e-14}}
    train(model, inputs, targets, seed=0, **({"optimizer": lbfgs, "epochs": 1000} | options))
    (W, b), = get_weights(model)
    return W, b


def compare(name, ours, other, tolerance=1e-5):
    """Prints weights and bias of both, a unit a row, and asserts that they agree."""
    ours = np.column_stack([ours[0].T, ours[1]])
    theirs = np.column_stack([np.atleast_2d(other.coef_), np.atleast_1d(other.intercept_)])
    for title, rows in [(name, ours), (type(other).__name__, theirs)]:
        for row in rows:
            print(f"{title:23}", *(f"{number:7.3f}" for number in row))
            title = ""
    assert np.allclose(ours, theirs, rtol=0, atol=tolerance)


inputs, width = flowers[:, :3], flowers[:, 3]
n = len(inputs)
compare("squared error", one_layer(inputs, width), LinearRegression().fit(inputs, width))
compare("squared error, l2", one_layer(inputs, width, l2=2 * 10 / n), Ridge(alpha=10).fit(inputs, width))

alphas = np.geomspace(0.1, 10000, 16)
path = np.array([one_layer(inputs, width, l2=2 * alpha / n)[0][:, 0] for alpha in alphas])
sklearn_path = np.array([Ridge(alpha=alpha).fit(inputs, width).coef_ for alpha in alphas])
assert np.allclose(path, sklearn_path, rtol=0, atol=1e-5)
assert (np.diff(np.linalg.norm(path, axis=1)) < 0).all()

petals = flowers[species > 0, 2:]
center = petals.mean(axis=0)
x, label = petals - center, species[species > 0] - 1
C, n = 1, len(x)
logistic = one_layer(x, label, "SIGMOID", l2=1 / (C * n))
sklearn_logistic = LogisticRegression(C=C, tol=1e-10).fit(x, label)
compare("sigmoid, cross-entropy", logistic, sklearn_logistic)

measures = flowers - flowers.mean(axis=0)
W, b = one_layer(measures, species, "SOFTMAX", units=3, l2=1 / (C * len(measures)))
sklearn_softmax = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(measures, species)
compare("softmax, cross-entropy", (W, b), sklearn_softmax)
assert np.allclose(W.sum(axis=1), 0, rtol=0, atol=1e-5) and abs(b.sum()) < 1e-5

y = 2 * label - 1
with_ones = np.column_stack([x, np.ones(n)])
W, _ = one_layer(with_ones, y, bias=False, loss={"squared_hinge": {}}, l2=1 / (C * n))
compare("squared hinge, 1 as x₃", (W[:2], W[2]), LinearSVC(C=C, dual=False, tol=1e-10).fit(x, y))

steps = {
    "optimizer": {"sgd": {"learning_rate": 1, "momentum": 0.9}},
    "schedule": {"exponential": {"gamma": 0.997}},
    "epochs": 4000,
    "batch_size": n,
}
machine = one_layer(x, y, loss={"hinge": {}}, l2=1 / (C * n), **steps)
sklearn_machine = SVC(kernel="linear", C=C, tol=1e-8).fit(x, y)
compare("hinge", machine, sklearn_machine, tolerance=1e-3)


def objective(w, b):
    """The mean hinge loss with its penalty."""
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + w @ w / (2 * C * n)


ours = objective(machine[0][:, 0], machine[1])
theirs = objective(sklearn_machine.coef_[0], sklearn_machine.intercept_)
print(f"objective {ours:.6f}, scikit-learn {theirs:.6f}")
assert abs(ours - theirs) < 1e-6

model = create(2, [{"units": 1}], weights=[machine])
margins = y * predict(model, x)[:, 0]
pulls = gradients(model, x, y, loss={"hinge": {}}).layers[0].delta[:, 0]
near = margins < 1.001
print(f"{near.sum()} of {n} flowers lie on or within the margins")
assert (pulls[~near] == 0).all() and (pulls[margins < 0.999] == -y[margins < 0.999] / n).all()
assert near.sum() == 25 and (margins[near] > 0.999).sum() == 4
assert len(sklearn_machine.support_) == 24 and near[sklearn_machine.support_].all()

random = np.random.default_rng(9)
points = random.uniform(-1, 1, (1000, 2))
counts = random.poisson(np.exp(0.5 + points @ [1, -0.7]))
W, b = one_layer(points, counts, loss={"poisson": {}}, l2=0.01)
compare("Poisson", (W, b), PoissonRegressor(alpha=0.01, tol=1e-10, max_iter=1000).fit(points, counts))
assert np.allclose([*W[:, 0], *b], [1, -0.7, 0.5], rtol=0, atol=0.12)

three, (left, middle, right) = figure(3, width=4.2, height=4.3)
left.semilogx(alphas, path, lw=2)
left.plot(alphas, sklearn_path, "k.", ms=4)
for height, name in [(-0.25, "sepal length"), (0.24, "sepal width"), (0.54, "petal length")]:
    left.text(alphas[1], height, name)
left.set(title="Ridge (dots: scikit-learn)", xlabel="α", ylabel="weight in petal width", ylim=(-0.3, 0.6))
lengths = np.array([2.9, 7.1])


def draw(axis, w1, w2, b, levels, **style):
    """The lines on which w·x + b has the levels, and a label for them."""
    for level in levels:
        axis.plot(lengths, center[1] + (level - b - w1 * (lengths - center[0])) / w2, **style)
        style["label"] = None


levels_of_p = [-np.log(9), 0, np.log(9)]
both = [(middle, logistic, sklearn_logistic, levels_of_p), (right, machine, sklearn_machine, [-1, 0, 1])]
for axis, (W, b), other, levels in both:
    assert ((x @ W[:, 0] + b > 0) != label).sum() == 5
    draw(axis, *W[:, 0], *b, levels, color="#e9a03b", lw=4, alpha=0.6, label="epochd")
    draw(axis, *other.coef_[0], *other.intercept_, levels, color="black", lw=1, ls="--", label="scikit-learn")
    for side, color, marker in [(0, "#1f6feb", "s"), (1, "#d1495b", "o")]:
        of_side = petals[label == side]
        axis.scatter(*of_side.T, s=14, color=color, marker=marker, label=names[side + 1], zorder=3)
    axis.set(xlabel="petal length, cm", ylabel="petal width, cm", xlim=lengths, ylim=(0.8, 2.7))
right.scatter(*petals[near].T, s=70, facecolor="none", edgecolor="#5c677d", label="on or within the margins")
middle.set_title("Logistic regression: p = 0.1, 0.5, 0.9")
right.set_title("Linear SVM: w·x + b = −1, 0, 1")
three.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=5)
save(three, "09_side_by_side.svg")

margins = np.linspace(-3, 3, 97)
family = {
    "perceptron": ("SIGN", "perceptron"),
    "hinge": ("IDENTITY", "hinge"),
    "squared hinge": ("IDENTITY", "squared_hinge"),
    "logistic, in bits": ("SIGMOID", "binary_cross_entropy"),
    "squared": ("IDENTITY", "squared_error"),
}
losses, slopes = {}, {}
for name, (activation, loss) in family.items():
    model = create(1, [{"units": 1, "activation": f"ACTIVATION_{activation}"}], weights=[([[1]], [0])])
    answer = gradients(model, margins, np.ones(len(margins)), loss={loss: {}}, reduction="REDUCTION_SUM")
    unit = np.log(2) if "bits" in name else 1
    losses[name], slopes[name] = answer.row_losses / unit, answer.layers[0].delta[:, 0] / unit

misclassified = (margins <= 0).astype(float)
missing = np.maximum(0, 1 - margins)
formulas = {
    "perceptron": (np.maximum(0, -margins), -misclassified),
    "hinge": (missing, -1.0 * (margins < 1)),
    "squared hinge": (missing**2, -2 * missing),
    "logistic, in bits": (np.log2(1 + np.exp(-margins)), -1 / (1 + np.exp(margins)) / np.log(2)),
    "squared": ((1 - margins) ** 2, 2 * (margins - 1)),
}
for name in family:
    printed = [losses[name][margins.tolist().index(margin)] for margin in [-1, 0, 1, 2]]
    print(f"{name:18}", *(f"{loss:6.3f}" for loss in printed))
    assert np.allclose([losses[name], slopes[name]], formulas[name], rtol=1e-12, atol=1e-14)
    assert (losses[name] >= misclassified - 1e-12).all() == (name != "perceptron")
assert (losses["hinge"][16:] == losses["perceptron"][:-16]).all()

figure_of_family, (left, right) = figure(2, width=5, height=3.9)
left.plot(margins, misclassified, color="black", lw=1.5, drawstyle="steps-pre", label="misclassified")
for name in family:
    style = {"lw": 2, "ls": "--", "zorder": 3} if name in ["perceptron", "squared"] else {"lw": 2}
    left.plot(margins, losses[name], label=name, **style)
    right.plot(margins, slopes[name], **style)
left.set(title="One row's loss", xlabel="margin y·z", ylabel="loss", ylim=(-0.2, 5))
right.set(title="Its slope: how hard the row pulls", xlabel="margin y·z", ylabel="dl / d(y·z)", ylim=(-4, 3))
figure_of_family.legend(loc="outside lower center", ncols=6)
save(figure_of_family, "09_margins.svg")
