"""Lesson 1: the perceptron and its learning rule. The page is docs/course/01_perceptron.md."""

import numpy as np

from course import create, figure, get_weights, gradients, plt, predict, save, set_weights, train

corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
AND = np.array([-1, -1, -1, 1])
OR = np.array([-1, 1, 1, 1])


def perceptron():
    """Two inputs, one sign unit, all weights 0."""
    return create(2, [{"units": 1, "activation": "ACTIVATION_SIGN", "initializer": {"zeros": {}}}])


model = perceptron()
result = train(model, corners, AND, shuffle=False)
(w, b), = get_weights(model)
print(f"{result.reason} after {len(result.epochs)} epochs: w = {w.ravel()}, b = {b}")
print("sign(w·x + b):", predict(model, corners).ravel())

assert result.reason == "CONVERGED" and len(result.epochs) == 9
assert (*w.ravel(), *b) == (3, 2, -4)
assert (predict(model, corners).ravel() == AND).all()


def rosenblatt(targets, epochs):
    """The rule by hand: the line after each epoch, and how many updates there were."""
    w, b, lines, updates = np.zeros(2), 0.0, [], 0
    for _ in range(epochs):
        for x, y in zip(corners, targets):
            if y * (w @ x + b) <= 0:
                w, b, updates = w + y * x, b + y, updates + 1
        lines.append((*w, b))
    return lines, updates


def epoch_by_epoch(targets, **options):
    """The line after each epoch, until every row is right."""
    model, lines = perceptron(), []
    for _ in range(20):
        result = train(model, corners, targets, epochs=1, start="TRAINING_START_CONTINUE", **options)
        (w, b), = get_weights(model)
        lines.append((*w.ravel(), *b))
        if result.reason == "CONVERGED":
            return lines
    raise AssertionError("20 epochs were not enough")


row_by_row = {}
for name, targets in [("AND", AND), ("OR", OR)]:
    row_by_row[name] = epoch_by_epoch(targets, shuffle=False)
    by_hand, updates = rosenblatt(targets, len(row_by_row[name]))
    assert row_by_row[name] == by_hand
    print(f"{name}: {len(by_hand)} epochs, {updates} updates")
    for epoch, (w1, w2, b) in enumerate(by_hand, 1):
        print(f"  epoch {epoch}: {w1:+.0f}·a {w2:+.0f}·b {b:+.0f} = 0")

rows = np.column_stack([corners, np.ones(4)])
margin = min(AND * (rows @ [2, 2, -3])) / np.sqrt(17)
bound = 3 / margin**2
print(f"Novikoff's bound for AND: {bound:.0f} updates")
assert rosenblatt(AND, 20)[1] == 18 and round(bound) == 51

batch = {}
for name, targets in [("AND", AND), ("OR", OR)]:
    batch[name] = epoch_by_epoch(targets, batch_size=4, reduction="REDUCTION_SUM")
    line = np.zeros(3)
    for after_epoch in batch[name]:
        mistakes = targets * (rows @ line) <= 0
        line += targets[mistakes] @ rows[mistakes]
        assert after_epoch == tuple(line)
    assert not mistakes.any()
    w1, w2, b = line
    print(f"{name} in full batches: {len(batch[name])} epochs, {w1:+.0f}·a {w2:+.0f}·b {b:+.0f} = 0")

figure_of_lines, axes = figure(4, width=2.9, height=3.8)
hows = {"row by row": row_by_row, "batch": batch}
cases = [(name, how, lines) for how in hows for name, lines in hows[how].items()]
for axis, (name, how, lines) in zip(axes, cases):
    epochs_of = {}
    for epoch, line in enumerate(lines, 1):
        if any(line[:2]):
            epochs_of.setdefault(tuple(np.round(line / np.hypot(*line[:2]), 9)), []).append(epoch)
    taken = corners
    for (w1, w2, b), epochs in epochs_of.items():
        along = np.linspace(-2, 2, 201)[:, None] * [-w2, w1] - [b * w1, b * w2]
        inside = along[(np.abs(along - 0.5) < 1.1).all(axis=1)]
        if len(inside) == 0:
            continue
        color = plt.cm.Blues(0.4 + 0.5 * epochs[-1] / len(lines))
        axis.plot(*along.T, color=color, lw=3 if epochs[-1] == len(lines) else 1.2)
        others = [abs(inside @ other[:2] + other[2]) for other in epochs_of if other != (w1, w2, b)]
        room = np.min([*others, *[np.hypot(*(inside - point).T) for point in taken]], axis=0)
        x, y = place = inside[np.argmax(room)]
        taken = [*taken, place]
        axis.text(x, y, ", ".join(map(str, epochs)), fontsize=8, ha="center", va="center", color=color,
                  bbox={"color": "white", "pad": 1})
    targets = {"AND": AND, "OR": OR}[name]
    for side, color, marker in [(1, "#2a9d8f", "o"), (-1, "#d1495b", "s")]:
        axis.scatter(*corners[targets == side].T, 50, color, marker=marker, zorder=3, label=f"y = {side:+}")
    axis.set(title=f"{name}, {how}: epochs 1 to {len(lines)}", xlabel="a", xlim=(-0.8, 1.8), ylim=(-0.8, 1.8))
    axis.set(aspect="equal", xticks=[0, 1], yticks=[0, 1])
    axis.title.set_size(10)
axes[0].set_ylabel("b")
figure_of_lines.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
save(figure_of_lines, "01_lines.svg")

model = perceptron()
at_zero = gradients(model, corners, AND, reduction="REDUCTION_SUM")
assert at_zero.loss == 0 and at_zero.layers[0].bias[0] == 2 and not predict(model, corners).any()

biases = np.linspace(-3, 1, 81)
criterion, slope, wrong = [], [], []
for b in biases:
    set_weights(model, [(np.array([[1.0], [1.0]]), np.array([b]))])
    answer = gradients(model, corners, AND, reduction="REDUCTION_SUM")
    criterion.append(answer.loss)
    slope.append(answer.layers[0].bias[0])
    wrong.append(np.count_nonzero(answer.layers[0].delta))

at = biases.tolist().index(-0.5)
print(f"at b = -0.5: {wrong[at]} rows wrong, J = {criterion[at]:.1f}, dJ/db = {slope[at]:+.0f}")
assert (wrong[at], criterion[at], slope[at]) == (2, 1.0, 2.0)
assert np.count_nonzero(np.diff(wrong)) == 3
away_from_kinks = np.abs(biases - np.round(biases)) > 0.06
assert np.allclose(np.gradient(criterion, biases)[away_from_kinks], np.array(slope)[away_from_kinks])

figure_of_criterion, (left, right) = figure(2)
left.step(biases, wrong, where="mid", color="#d1495b")
left.set(title="Misclassified rows: slope 0 or none", xlabel="b, with w = (1, 1)", yticks=range(4))
left.set_ylabel("rows of AND wrong")
right.plot(biases, criterion, label="J")
right.step(biases, slope, "--", where="mid", label="dJ/db, from ComputeGradients")
right.set(title="The perceptron criterion: a slope to follow", xlabel="b, with w = (1, 1)")
right.legend()
save(figure_of_criterion, "01_criterion.svg")
