"""Lesson 2: no perceptron learns XOR. The page is docs/course/02_xor.md."""

import numpy as np

from course import create, features, figure, get_weights, plt, predict, save, train

corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
XOR = np.array([-1, 1, 1, -1])
AND = np.array([-1, -1, -1, 1])
sign = {"units": 1, "activation": "ACTIVATION_SIGN"}
sign_from_zero = sign | {"initializer": {"zeros": {}}}

model = create(2, [sign_from_zero])
for row in range(4):
    x, y = corners[row], XOR[row]
    train(model, [x], [y], epochs=1, start="TRAINING_START_CONTINUE")
    (w, b), = get_weights(model)
    print(f"after x = {x}, y = {y:+d}:  w = ({w[0, 0]:.0f}, {w[1, 0]:.0f}), b = {b[0]:.0f}")
assert not w.any() and not b.any()

ways = {"row by row": {"batch_size": 1}, "full batch": {"batch_size": 4, "reduction": "REDUCTION_SUM"}}

for way, options in ways.items():
    model = create(2, [sign_from_zero])
    result = train(model, corners, XOR, shuffle=False, epochs=1000, **options)
    counts = {report.metrics.misclassified_rows for report in result.epochs}
    loss = result.losses[-1]
    print(f"{way}: {result.reason}, rows wrong in all {len(result.epochs)} epochs: {counts}, loss {loss:.0f}")
    assert result.reason == "EPOCHS_DONE" and counts == {4}
    assert not any(parameters.any() for parameters in get_weights(model)[0])
assert not result.losses.any()


def follow(model, targets, **options):
    """Trains; the reason why it ended, and misclassified rows by epoch: during the epoch, and after it."""
    result = train(model, corners, targets, validation=(corners, targets), **options)
    during = [report.metrics.misclassified_rows for report in result.epochs]
    after = [report.validation_metrics.misclassified_rows for report in result.epochs]
    return result.reason, during, after


for way, options in ways.items():
    reason, during, after = follow(create(2, [sign], seed=7), XOR, epochs=8, seed=7, **options)
    print(f"{way}: during each epoch {during}, after it {after}")
    assert (during[1:] == after[:-1]) == (way == "full batch")
    assert ((during[3], after[2], after[3]) == (1, 2, 2)) == (way == "row by row")

model, lines = create(2, [sign], seed=7), []
for epoch in range(1, 7):
    train(model, corners, XOR, epochs=1, start="TRAINING_START_CONTINUE", seed=7, **ways["full batch"])
    (w, b), = get_weights(model)
    lines.append([*w.ravel(), *b])
    print("epoch {}: {:+.3f}·x₁ {:+.3f}·x₂ {:+.0f} = 0".format(epoch, *lines[-1]))
assert np.allclose(lines[1], lines[3]) and np.allclose(lines[3], lines[5])
assert np.allclose(np.subtract(lines[4], lines[3]), [1, 1, 2])

rates = [1 / 64, 1 / 8, 1, 8]
seeds = range(1, 11)
keep_best = {"metric": "METRIC_MISCLASSIFIED_ROWS", "patience": 150}
table = {(name, way): np.zeros((40, 150), int) for name in ("AND", "XOR") for way in ways}
best_on_xor = []
for (name, way), counts in table.items():
    targets = {"AND": AND, "XOR": XOR}[name]
    converged, fewest = 0, 4
    for run, (rate, seed) in enumerate((rate, seed) for rate in rates for seed in seeds):
        model = create(2, [sign], seed=seed)
        reason, during, after = follow(model, targets, optimizer={"sgd": {"learning_rate": rate}}, epochs=150,
                                       seed=seed, early_stopping=keep_best, **ways[way])
        counts[run, :len(during)] = during
        converged += reason == "CONVERGED"
        fewest = min(fewest, *during, *after)
        if name == "XOR":
            assert reason == "EPOCHS_DONE" and min(during) >= 1 and min(after) >= 1
            best_on_xor.append(model)
    print(f"{name}, {way}: {converged} of 40 converged, fewest rows wrong: {fewest}")
    assert (converged, fewest) == ((40, 0) if name == "AND" else (0, 1))
assert (table["XOR", "full batch"][20:, 2:] == 2).all()
assert all((table["XOR", way][:10] == 1).mean() > 0.1 for way in ways)

shades = plt.matplotlib.colors.ListedColormap(["white", "#fde0c5", "#f5a97f", "#d1495b", "#6b1d3a"])
panels = [("AND", "row by row"), ("XOR", "row by row"), ("XOR", "full batch")]
figure_of_epochs, axes = figure(3, width=3.6, height=3.9, sharey=True)
for axis, panel in zip(axes, panels):
    image = axis.imshow(table[panel], cmap=shades, vmin=-0.5, vmax=4.5, aspect="auto", interpolation="none",
                        extent=(0.5, 150.5, 40, 0))
    axis.set(title=", ".join(panel), xlabel="epoch", xticks=[1, 50, 100, 150])
    axis.grid(False)
    axis.hlines([10, 20, 30], 0.5, 150.5, color="black", lw=0.8)
axes[0].set_yticks([5, 15, 25, 35], ["rate 1/64", "rate 1/8", "rate 1", "rate 8"])
axes[0].set_ylabel("40 trainings, ten seeds for each rate")
figure_of_epochs.colorbar(image, ax=axes, ticks=range(5), label="misclassified rows (white: none)")
save(figure_of_epochs, "02_epochs.png")

best_lines = [get_weights(model)[0] for model in best_on_xor]
best_answers = [predict(model, corners).ravel() for model in best_on_xor]
best_wrong = [np.count_nonzero(answers != XOR) for answers in best_answers]
alike = sum(len(set(answers)) == 1 for answers in best_answers)
print(f"80 best lines: {best_wrong.count(1)} with one row wrong, {best_wrong.count(2)} with two")
print(f"{alike} of them say the same of every row")
assert set(best_wrong) == {1, 2} and alike > 20

figure_of_lines, (left, right) = figure(2, width=4.3, height=4.5)
left.plot([0, 1], [1, 0], color="#2a9d8f", lw=3)
left.plot([0, 1], [0, 1], color="#d1495b", lw=3)
left.plot(0.5, 0.5, "k*", ms=14, zorder=3)
left.text(0.6, 0.5, "(½, ½)", va="center")
left.set_title("One point on both sides of a line?")
for (w, b), wrong in zip(best_lines[10:20], best_wrong[10:20]):
    foot, along = -b[0] * w[:, 0] / np.sum(w**2), np.array([-w[1, 0], w[0, 0]]) / np.linalg.norm(w)
    color, label = ("#1f6feb", "one row wrong") if wrong == 1 else ("#9aa5b1", "two rows wrong")
    right.plot(*np.transpose([foot - 5 * along, foot + 5 * along]), color=color, lw=1, label=label)
right.set_title("The best lines of ten trainings")
for axis, size in [(left, 90), (right, 30)]:
    for side, color, marker in [(1, "#2a9d8f", "o"), (-1, "#d1495b", "s")]:
        axis.scatter(*corners[XOR == side].T, s=size, c=color, marker=marker, zorder=3, label=f"y = {side:+}")
    axis.set(xlabel="x₁", ylabel="x₂", xlim=(-0.4, 1.4), ylim=(-0.4, 1.4), xticks=[0, 1], yticks=[0, 1])
    axis.set_aspect("equal")
handles, labels = right.get_legend_handles_labels()
legend = dict(zip(labels, handles))
figure_of_lines.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4)
save(figure_of_lines, "02_lines.svg")

angle, distance = np.meshgrid(np.radians(np.arange(1, 360, 2)), np.arange(-0.99, 1, 0.02))
W = np.array([np.cos(angle).ravel(), np.sin(angle).ravel()])
b = -distance.ravel() - W.sum(axis=0) / 2
many = create(2, [{"units": len(b), "activation": "ACTIVATION_SIGN"}], weights=[(W, b)])
z = features(many, corners, 0, before_activation=True)
assert np.abs(z[0] + z[3] - z[1] - z[2]).max() < 1e-12

sides = predict(many, corners)
apart = np.abs(distance.ravel()[np.abs(sides.sum(axis=0)) < 4])
assert 0.68 < apart.max() < np.sqrt(0.5)
figure_of_map, axes = figure(2, width=4.6, height=3.8, sharey=True)
for axis, (name, targets) in zip(axes, [("AND", AND), ("XOR", XOR)]):
    mistakes = sides != targets[:, None]
    wrong = mistakes.sum(axis=0)
    print(f"{name}: {len(wrong)} lines, fewest rows wrong: {wrong.min()}")
    assert set(wrong) == ({0, 1, 2, 3, 4} if name == "AND" else {1, 2, 3})
    image = axis.imshow(wrong.reshape(angle.shape), cmap=shades, vmin=-0.5, vmax=4.5, aspect="auto",
                        origin="lower", interpolation="none", extent=(0, 360, -1, 1))
    axis.set(title=f"{name}, every line", xlabel="direction of w, degrees", xticks=range(0, 361, 90))
    axis.grid(False)
assert mistakes[:, wrong == 1].any(axis=1).all() and not mistakes[:, wrong == 3].all(axis=1).any()
axes[0].set_ylabel("d, signed distance from (½, ½)")
figure_of_map.colorbar(image, ax=axes, ticks=range(5), label="misclassified rows (white: none)")
save(figure_of_map, "02_map.png")

names = ["never", "AND", "x₁ and not x₂", "x₁", "x₂ and not x₁", "x₂", "XOR", "OR",
         "NOR", "XNOR", "not x₂", "x₁ or not x₂", "not x₁", "x₂ or not x₁", "NAND", "always"]
figure_of_all, axes = plt.subplots(2, 8, figsize=(11, 3.3), layout="constrained")
learned = []
for axis, (number, name) in zip(axes.flat, enumerate(names)):
    targets = np.array([1 if digit == "1" else -1 for digit in f"{number:04b}"])
    model = create(2, [sign_from_zero])
    result = train(model, corners, targets, shuffle=False, epochs=100)
    (w, b), = get_weights(model)
    line = "no line"
    if result.reason == "CONVERGED":
        learned.append(name)
        line = f"{w[0, 0]:+.0f}·x₁ {w[1, 0]:+.0f}·x₂ {b[0]:+.0f}"
        assert (predict(model, corners).ravel() == targets).all()
        ends = np.array([-0.4, 1.4])
        z = w[0] * ends + w[1] * ends[:, None] + b
        axis.contourf(ends, ends, z, levels=[-99, 0, 99], colors=["#f7dde0", "#d8efec"])
    print(f"{name:14}{' '.join(f'{y:+d}' for y in targets)}   {line}")
    axis.scatter(*corners.T, s=40, c=np.where(targets > 0, "#2a9d8f", "#d1495b"), zorder=3)
    axis.set(xlim=(-0.4, 1.4), ylim=(-0.4, 1.4), xticks=[], yticks=[], aspect="equal")
    axis.set_title(name if name in learned else f"{name}: none", fontsize=9)
print(len(learned), "of 16 learned")
assert [name for name in names if name not in learned] == ["XOR", "XNOR"]
figure_of_all.supxlabel("x₁ (from 0 to 1)", fontsize=9)
figure_of_all.supylabel("x₂ (from 0 to 1)", fontsize=9)
save(figure_of_all, "02_sixteen.svg")

zero_one = (XOR + 1) // 2
unit = {"units": 1, "activation": "ACTIVATION_SIGMOID", "initializer": {"normal": {"deviation": 3}}}
figure_of_logistic, (left, right) = figure(2, width=4.4)
for seed in seeds:
    model, probabilities, losses = create(2, [unit], seed=seed), [], []
    for _ in range(60):
        probabilities.append(predict(model, corners).ravel())
        losses.extend(train(model, corners, zero_one, optimizer={"sgd": {"learning_rate": 2}}, batch_size=4,
                            epochs=5, seed=seed, start="TRAINING_START_CONTINUE").losses)
    p = predict(model, corners).ravel()
    assert np.abs(p - 0.5).max() < 1e-6
    assert min(losses) > np.log(2) - 1e-12 and losses[-1] < np.log(2) + 1e-9
    if seed == 1:
        for x, y, curve in zip(corners, zero_one, np.transpose(probabilities)):
            left.plot(range(0, 300, 5), curve, "-" if y else "--", label=f"x = ({x[0]}, {x[1]}), y = {y}")
    right.plot(range(1, 301), losses, color="#1f6feb", lw=1)
print(f"p = {p.round(3)}, loss {losses[-1]:.3f}, ln 2 = {np.log(2):.3f}")

left.set(title="What the unit says, seed 1", xlabel="epoch", ylabel="p", ylim=(0, 1), xlim=(0, 150))
left.legend(fontsize=8)
right.axhline(np.log(2), color="black", ls=":", label="ln 2")
right.set(title="Ten seeds", xlabel="epoch", ylabel="mean cross-entropy", xlim=(0, 150), ylim=(0, 2))
right.legend()
save(figure_of_logistic, "02_logistic.svg")
