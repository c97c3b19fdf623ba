"""Lesson 4: XOR learned, hidden features, depth against width. The page is docs/course/04_features.md."""

import numpy as np

from course import create, features, figure, get_weights, parameter_count, plt, predict, save, train

corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
XOR = np.array([0, 1, 1, 0])


def learn_xor(units, seed, epochs=500):
    """A 2-units-1 network of tanh and sigmoid, trained on XOR: the model, and what its training told."""
    hidden = {"units": units, "activation": "ACTIVATION_TANH"}
    model = create(2, [hidden, {"units": 1, "activation": "ACTIVATION_SIGMOID"}], seed=seed)
    options = {"optimizer": {"adam": {"learning_rate": 0.05}}, "batch_size": 4, "seed": 1, "report_every": 50}
    return model, train(model, corners, XOR, epochs=epochs, **options)


model, result = learn_xor(2, seed=4)
print("says:", predict(model, corners).ravel().round(2))
print(f"loss: {result.losses[0]:.3f} after epoch 50, {result.losses[-1]:.3f} after epoch 500")
assert ((predict(model, corners).ravel() > 0.5) == XOR).all()

hidden = features(model, corners, layer=0)
for x, y, h in zip(corners, XOR, hidden):
    print(f"x = {x}, y = {y}: h = ({h[0]:+.2f}, {h[1]:+.2f})")


def perceptron(rows):
    """A perceptron, a model of its own, trained to tell XOR from these rows."""
    model = create(rows.shape[1], [{"units": 1, "activation": "ACTIVATION_SIGN"}], seed=1)
    return model, train(model, rows, 2 * XOR - 1, epochs=1000, seed=1)


line, on_features = perceptron(hidden)
_, on_corners = perceptron(corners)
print("on the hidden features:", on_features.reason)
print("on the raw inputs:", on_corners.reason)
assert on_features.reason == "CONVERGED" and (predict(line, hidden).ravel() == 2 * XOR - 1).all()
assert on_corners.reason == "EPOCHS_DONE"
assert all(report.metrics.misclassified_rows >= 1 for report in on_corners.epochs)

stuck, stuck_result = learn_xor(2, seed=1)
stuck_hidden = features(stuck, corners, layer=0)
print("seed 1 says:", predict(stuck, corners).ravel().round(2))
for x, y, h in zip(corners, XOR, stuck_hidden):
    print(f"x = {x}, y = {y}: h = ({h[0]:+.2f}, {h[1]:+.2f})")
assert np.abs(stuck_hidden[2] - stuck_hidden[3]).max() < 0.02
assert perceptron(stuck_hidden)[1].reason == "EPOCHS_DONE"

side = np.linspace(0, 1, 21)
figure_of_folds, (left, middle, right) = figure(3, width=3.6, height=4)
for axis in [left, middle, right]:
    network = stuck if axis is right else model
    for at in np.linspace(0, 1, 11):
        for grid_line in [np.column_stack([side, 0 * side + at]), np.column_stack([0 * side + at, side])]:
            drawn = grid_line if axis is left else features(network, grid_line, layer=0)
            axis.plot(*drawn.T, color="#b8c0cc", lw=0.8)
    places = corners if axis is left else features(network, corners, layer=0)
    together = {}
    for (a, b), place in zip(corners, places):
        together.setdefault(tuple(place.round(1)), []).append(f"({a}, {b})")
    for (h1, h2), names in together.items():
        center = 0.5 if axis is left else 0
        inwards = (-8 if h1 > center else 8, -16 if h2 > center else 8)
        axis.annotate(" and ".join(names), (h1, h2), inwards, textcoords="offset points",
                      horizontalalignment="right" if h1 > center else "left")
    for y, color, marker, size in [(1, "#2a9d8f", "o", 200), (0, "#d1495b", "s", 50)]:
        axis.scatter(*places[XOR == y].T, s=size, color=color, marker=marker, zorder=3, label=f"XOR is {y}")
    axis.set(aspect="equal", xlabel="h₁", ylabel="h₂")
(w, b), = get_weights(line)
across = np.array([-1.1, 1.1])
middle.plot(across, -(w[0] * across + b) / w[1], color="black", label="the perceptron's line")
left.set(title="The inputs", xlabel="a", ylabel="b")
middle.set(title="In the hidden layer: separable", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
right.set(title="Seed 1: two corners in one place", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
figure_of_folds.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=3)
save(figure_of_folds, "04_folds.svg")

largest = [0]
for epochs in [500, 5000, 20000]:
    model_then, result_then = learn_xor(2, seed=1, epochs=epochs)
    largest.append(max(np.abs(w).max() for w, _ in get_weights(model_then)))
    print(f"after {epochs:5} epochs: loss {result_then.losses[-1]:.4f}, largest weight {largest[-1]:.1f}")
    assert result_then.losses[-1] > np.log(2) / 2 and largest[-1] > 1.3 * largest[-2]
assert result_then.losses[-1] < np.log(2) / 2 + 1e-5

learned = {}
for units in [2, 4, 8]:
    learned[units] = 0
    for seed in range(1, 21):
        network, result = learn_xor(units, seed)
        solved = bool(((predict(network, corners).ravel() > 0.5) == XOR).all() and result.losses[-1] < 0.1)
        _, judge = perceptron(features(network, corners, layer=0))
        assert (judge.reason == "CONVERGED") == solved
        assert solved or abs(result.losses[-1] - np.log(2) / 2) < 0.01
        learned[units] += solved
    print(f"2-{units}-1: {learned[units] / 20:.0%} of 20 seeds learn XOR")
assert 5 <= learned[2] <= 13 and learned[4] >= 15 and learned[8] == 20

wide_enough, _ = learn_xor(4, seed=1)
plane = np.array([[a, b] for b in np.linspace(-0.5, 1.5, 61) for a in np.linspace(-0.5, 1.5, 61)])
phi = features(wide_enough, plane, layer=0)
logit = features(wide_enough, plane, layer=1, before_activation=True)
_, (w, b) = get_weights(wide_enough)
assert np.allclose(phi @ w + b, logit, atol=1e-12)
assert np.allclose(1 / (1 + np.exp(-logit)), predict(wide_enough, plane), atol=1e-12)

figure_of_basis, axes = figure(6, width=2.1, height=2.7)
pictures = [(phi[:, k], f"φ{k + 1}, weight {w[k, 0]:+.1f}", 1) for k in range(4)]
pictures += [(logit, "the weighted sum z", 8), (predict(wide_enough, plane) * 2 - 1, "σ(z)", 1)]
for axis, (values, title, largest) in zip(axes, pictures):
    values, extent = values.reshape(61, 61), (-0.5, 1.5, -0.5, 1.5)
    axis.imshow(values, origin="lower", extent=extent, cmap="RdYlGn", vmin=-largest, vmax=largest)
    axis.contour(values, levels=[0], extent=extent, colors="black", linewidths=1)
    for y, marker in [(1, "o"), (0, "s")]:
        axis.scatter(*corners[XOR == y].T, s=25, color="white", edgecolor="black", marker=marker, zorder=3)
    axis.set(title=title, xticks=[0, 1], yticks=[0, 1], xlabel="a")
    axis.title.set_size(10)
axes[0].set_ylabel("b")
save(figure_of_basis, "04_basis.png")


def spirals(rows, turns, random):
    """Points on two spirals, one the other turned by half a turn; which of the two, 0 or 1."""
    which = np.arange(rows) % 2
    radius = np.sqrt(random.uniform(0.02, 1, rows))
    angle = 2 * np.pi * turns * radius + np.pi * which
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), which


random = np.random.default_rng(0)
rows, which = spirals(400, 2.5, random)
held_out, which_held_out = spirals(400, 2.5, random)


def classifier(widths, seed):
    hidden = [{"units": units, "activation": "ACTIVATION_RELU"} for units in widths]
    return create(2, hidden + [{"units": 1, "activation": "ACTIVATION_SIGMOID"}], seed=seed)


shapes = {"wide": [152], "deep": [16, 16, 16]}
for name, widths in shapes.items():
    parameters = parameter_count(classifier(widths, seed=1))
    print(f"{name}: hidden layers {widths}, {parameters} parameters")
    assert parameters == 609


def accuracy(model, rows, which):
    return np.mean((predict(model, rows).ravel() > 0.5) == which)


rates, seeds = [0.003, 0.01, 0.03], range(1, 8)
options = {"epochs": 400, "batch_size": 32, "seed": 1, "report_every": 10}
found = {}
for name, widths in shapes.items():
    for rate in rates:
        runs = []
        for seed in seeds:
            network = classifier(widths, seed)
            result = train(network, rows, which, optimizer={"adam": {"learning_rate": rate}}, **options)
            at_98 = [report.epoch for report in result.epochs if report.metrics.accuracy >= 0.98]
            runs.append((accuracy(network, held_out, which_held_out), accuracy(network, rows, which),
                         at_98[0] if at_98 else 401, network, result.losses))
        found[name, rate] = sorted(runs, key=lambda run: run[0])

print("medians of 7 seeds: accuracy on held-out rows, in training, epochs until 98 % in training")
ahead, worst, until_98 = {}, {}, {}
for case, runs in found.items():
    ahead[case], fitted, until_98[case] = np.median([run[:3] for run in runs], axis=0)
    worst[case] = runs[0][0]
    epochs = f"{until_98[case]:.0f}" if until_98[case] <= 400 else "never"
    medians = f"{ahead[case]:.2f}, {fitted:.2f}, {epochs:>5}"
    above = sum(run[0] > 0.95 for run in runs)
    told = {7: f"{medians}; every seed above 0.95", 0: f"{medians}; no seed above 0.95"}
    print("{}, rate {:.3f}:".format(*case), told.get(above, "some seeds above 0.95, some not"))

assert ahead["wide", 0.003] < 0.7 and worst["deep", 0.003] > 0.95
assert ahead["wide", 0.01] > 0.97 and worst["deep", 0.01] > 0.97
assert worst["wide", 0.03] > 0.97 and worst["deep", 0.03] < 0.95
assert until_98["deep", 0.01] <= 70 < 100 <= until_98["wide", 0.03]

grid = np.linspace(-1.1, 1.1, 91)
square = np.array([[a, b] for b in grid for a in grid])
figure_of_spirals, axes = plt.subplots(2, 3, figsize=(7.6, 5.4), layout="constrained", sharex=True,
                                       sharey=True)
for axis, ((name, rate), runs) in zip(axes.ravel(), found.items()):
    network = runs[0][3]
    axis.imshow(predict(network, square).reshape(91, 91), origin="lower", extent=(-1.1, 1.1, -1.1, 1.1),
                cmap="RdYlGn", vmin=-0.3, vmax=1.3, interpolation="nearest")
    for side, color, marker in [(1, "#1d6f64", "o"), (0, "#a12a3c", "s")]:
        axis.scatter(*rows[which == side].T, s=4, color=color, marker=marker)
    axis.set(title=f"{name}, rate {rate}: worst {worst[name, rate]:.2f}", xlabel="a", ylabel="b")
    axis.title.set_size(10)
    axis.label_outer()
    axis.grid(False)
save(figure_of_spirals, "04_spirals.png")

figure_of_losses, axes = figure(3, width=3.2, height=3.2, sharey=True)
for axis, rate in zip(axes, rates):
    for name in shapes:
        losses = np.array([run[4] for run in found[name, rate]])
        epochs, color = np.arange(10, 401, 10), {"wide": "#d1495b", "deep": "#1f6feb"}[name]
        axis.plot(epochs, losses.T, color=color, alpha=0.15, lw=1)
        axis.plot(epochs, np.median(losses, axis=0), color=color, lw=2, label=name)
    axis.set(title=f"rate {rate}", xlabel="epoch", yscale="log", ylim=(1e-4, 2))
axes[0].set_ylabel("training loss")
axes[0].legend(loc="lower left")
save(figure_of_losses, "04_losses.svg")
