"""Lesson 5: universal approximation. The page is docs/course/05_approximation.md."""

from time import perf_counter

import numpy as np

from course import create, features, figure, get_weights, parameter_count, plt, predict, save, train


def f(x):
    return np.sin(2 * np.pi * x)


def staircase(steps, function=f):
    """One hidden layer of STEP units, set by hand: over each of `steps` cells, f at the cell's midpoint."""
    edges = np.arange(steps) / steps
    heights = function(edges + 0.5 / steps)
    hidden = np.ones((1, steps)), np.where(edges > 0, -edges, 1)
    output = np.diff(heights, prepend=0)[:, None], np.zeros(1)
    return create(1, [{"units": steps, "activation": "ACTIVATION_STEP"}, {"units": 1}], [hidden, output])


x = np.linspace(0, 1, 10001)
steps = np.array([10, 20, 40, 80])
errors = np.array([np.abs(predict(staircase(n), x).ravel() - f(x)).max() for n in steps])
for n, error in zip(steps, errors):
    print(f"{n} steps: largest error {error:.4f}, bound {np.pi / n:.4f}")
assert np.allclose(errors, np.sin(np.pi / steps), atol=1e-12)
assert errors.round(4).tolist() == [0.3090, 0.1564, 0.0785, 0.0393]
assert (errors <= np.pi / steps).all() and np.allclose(errors[:-1] / errors[1:], 2, rtol=0.02)
for n in steps:
    assert np.abs(predict(staircase(n, np.cos), x).ravel() - np.cos(x)).max() <= 1 / (2 * n)

figure_of_stairs, (left, right) = figure(2)
left.plot(x, f(x), color="black", lw=1, label="sin 2πx")
for n in [10, 40]:
    left.plot(x, predict(staircase(n), x), label=f"{n} steps")
left.set(title="Staircases of STEP units", xlabel="x", ylabel="output")
left.legend()
right.plot(steps, errors, "o", label="measured")
right.plot(steps, np.pi / steps, "--", color="#5c677d", label="bound L·h/2 = π/N")
right.set(title="Twice the steps, half the error: slope −1", xlabel="steps N", ylabel="largest error")
right.set(xscale="log", yscale="log")
right.set_xticks(steps, steps)
right.minorticks_off()
right.set_yticks([0.04, 0.08, 0.16, 0.32], ["0.04", "0.08", "0.16", "0.32"])
right.legend()
save(figure_of_stairs, "05_staircase.svg")

samples = np.linspace(0, 1, 201)


def learn(units, seed):
    """One hidden layer of tanh units that learns f from 201 samples; its largest error."""
    layers = [{"units": units, "activation": "ACTIVATION_TANH"}, {"units": 1}]
    model = create(1, layers, seed=seed, preprocessing={"inputs": {"standard": {}}})
    train(model, samples, f(samples), optimizer={"lbfgs": {}}, epochs=500, seed=1, report_every=100)
    return model, np.abs(predict(model, x).ravel() - f(x)).max()


for units in [1, 2]:
    largest = [learn(units, seed)[1] for seed in range(1, 8)]
    print(f"{units} tanh, {3 * units + 1} parameters: largest error {max(largest):.3f}, "
          "the worst of 7 trainings")
    assert min(largest) > 0.5 if units == 1 else max(largest) < 0.02
needed = int(np.ceil(np.pi / np.arcsin(0.02)))
print(f"{needed} steps, {3 * needed + 1} parameters: largest error {np.sin(np.pi / needed):.3f}")

learned, _ = learn(2, seed=1)
parts = features(learned, x, layer=0) * get_weights(learned)[1][0].ravel()
slope, start = np.polyfit(x, parts, 1)
bend = np.abs(parts - np.outer(x, slope) - start).max(axis=0)
assert parts.max() > 5 and slope[0] * slope[1] < 0 and bend.max() > 4 * bend.min()
figure_of_learned, (left, right) = figure(2)
left.plot(x, f(x), color="#c3c9d2", lw=5, label="sin 2πx")
left.plot(x, predict(learned, x), label="the network")
left.plot(x, parts, "--", label=["w₁φ₁(x)", "w₂φ₂(x)"])
left.set(title="Two learned units", xlabel="x", ylabel="output", ylim=(-7, 8.5))
left.legend(loc="upper center", labelspacing=0.3)
right.plot(x, predict(staircase(80), x).ravel() - f(x), color="#5c677d", lw=0.8, label="80 steps")
right.plot(x, predict(learned, x).ravel() - f(x), color="#1f6feb", lw=2, label="2 learned units")
right.set(title="What is left over", xlabel="x", ylabel="output − sin 2πx", ylim=(-0.045, 0.06))
right.legend(loc="upper center", ncols=2)
save(figure_of_learned, "05_learned.svg")

random = np.random.default_rng(0)
few = (np.arange(20) + 0.5) / 20
noisy = f(few) + 0.3 * random.normal(size=20)
others = random.uniform(size=200)
noisy_others = f(others) + 0.3 * random.normal(size=200)
slopes = 40 * random.choice([-1, 1], size=100)
centers = random.uniform(size=100)


def memorize(**options):
    """100 steep tanh units, each starting as a step somewhere in [0, 1], on 20 noisy rows."""
    layers = [{"units": 100, "activation": "ACTIVATION_TANH"}, {"units": 1}]
    weights = [(slopes[None, :], -slopes * centers), (np.zeros((100, 1)), np.zeros(1))]
    model = create(1, layers, weights)
    options |= {"optimizer": {"adam": {"learning_rate": 0.0005}}, "epochs": 3000, "batch_size": 20, "seed": 1}
    return model, train(model, few, noisy, validation=(others, noisy_others), **options)


memorized, result = memorize()
validation = np.array([report.validation_loss for report in result.epochs])
best = validation.argmin()
print(f"training loss: {result.losses[best]:.3f} after epoch {best + 1}, {result.losses[-1]:.3f} after 3000")
print(f"validation loss: {validation[best]:.3f} after epoch {best + 1}, {validation[-1]:.3f} after 3000")
assert parameter_count(memorized) == 301 and result.losses[-1] < 0.001
assert best + 1 < 300 and validation[-1] > 1.4 * validation[best]
assert abs(validation[-1] - 2 * 0.09) < 0.03

stopped, stopped_result = memorize(early_stopping={"patience": 200})
grid = np.linspace(0, 1, 1001)
distance = {name: np.sqrt(np.mean((predict(model, grid).ravel() - f(grid)) ** 2))
            for name, model in [("3000 epochs", memorized), ("stopped early", stopped)]}
print(stopped_result.reason)
for name, value in distance.items():
    print(f"{name}: root mean square distance from sin 2πx {value:.3f}")
assert stopped_result.reason == "EARLY_STOPPED" and len(stopped_result.epochs) == best + 1 + 200
validation_error = np.mean((predict(stopped, others).ravel() - noisy_others) ** 2)
assert np.isclose(validation_error, validation[best], rtol=1e-9)
assert distance["stopped early"] < 0.6 * distance["3000 epochs"]

figure_of_noise, (left, right) = figure(2, width=5)
epochs = np.arange(1, 3001)
left.plot(epochs, result.losses, label="training")
left.plot(epochs, validation, label="validation")
left.axhline(0.09, color="#5c677d", lw=1, ls="--", label="variance of the noise")
left.axvline(best + 1, color="#2a9d8f", lw=1, label="best epoch")
left.set(title="Training falls on, validation turns", xlabel="epoch", ylabel="squared error")
left.set(xscale="log", ylim=(0, 0.6))
left.legend()
right.scatter(few, noisy, color="black", s=18, zorder=3, label="20 training rows")
right.plot(grid, f(grid), color="black", lw=1, label="sin 2πx")
right.plot(grid, predict(memorized, grid), color="#d1495b", label="3000 epochs")
right.plot(grid, predict(stopped, grid), color="#2a9d8f", label="stopped early")
right.set(title="What was learned", xlabel="x", ylabel="output")
right.legend()
save(figure_of_noise, "05_noise.svg")


def g(rows):
    """The product of sin 2πx over a row's columns."""
    return f(rows).prod(axis=1)


def middles_of_cells(dimensions, steps):
    return (np.array(list(np.ndindex(*[steps] * dimensions))) + 0.5) / steps


def cells(dimensions, steps):
    """A unit for each inner edge of each axis, an AND unit for each cell, weighted by g at its midpoint."""
    inner, edges = steps - 1, np.arange(1, steps) / steps
    edge_units = np.repeat(np.eye(dimensions), inner, axis=1), -np.tile(edges, dimensions)
    weights, biases = np.zeros((dimensions * inner, steps**dimensions)), np.full(steps**dimensions, 0.5)
    for cell, place in enumerate(np.ndindex(*[steps] * dimensions)):
        for axis, index in enumerate(place):
            if index > 0:
                weights[axis * inner + index - 1, cell] = 1
                biases[cell] -= 1
            if index < inner:
                weights[axis * inner + index, cell] = -1
    output = g(middles_of_cells(dimensions, steps))[:, None], np.zeros(1)
    layers = [{"units": dimensions * inner, "activation": "ACTIVATION_STEP"},
              {"units": steps**dimensions, "activation": "ACTIVATION_STEP"}, {"units": 1}]
    return create(dimensions, layers, [edge_units, (weights, biases), output])


def worst_rows(dimensions, steps):
    """Corners of cells, a little inside, where g is farthest from its value at the midpoint; and how far."""
    corners = np.array(list(np.ndindex(*[2] * dimensions))) - 0.5
    middles = middles_of_cells(dimensions, steps)
    rows = (middles[:, None, :] + (1 - 1e-9) * corners / steps).reshape(-1, dimensions)
    far = np.abs(g(rows) - np.repeat(g(middles), len(corners)))
    worst = far.argsort()[-1000:]
    return rows[worst], far[worst].max()

by_hand, parameters = {}, {}
for dimensions, steps in [(1, 20), (2, 20), (3, 23)]:
    by_hand[dimensions] = cells(dimensions, steps)
    rows, expected = worst_rows(dimensions, steps)
    error = np.abs(predict(by_hand[dimensions], rows).ravel() - g(rows)).max()
    parameters[dimensions] = parameter_count(by_hand[dimensions])
    edge_units = dimensions * (steps - 1)
    print(f"d = {dimensions}: {steps} cells an axis, {edge_units} edge units, {steps**dimensions} cell units,"
          f" {parameters[dimensions]} parameters, largest error {error:.3f}")
    assert np.isclose(error, expected, atol=1e-9) and 0.15 < error < 0.16
    assert error < np.pi / steps * {1: 1, 2: 1, 3: 2 / np.sqrt(3)}[dimensions]
    assert parameters[dimensions] == edge_units * (dimensions + 1) + steps**dimensions * (edge_units + 2) + 1
print(f"d = 10 would take {20**10:.0e} cells")

lattice = np.array(list(np.ndindex(12, 12, 12))) / 11
hidden = [{"units": 24, "activation": "ACTIVATION_TANH"}] * 3
small = create(3, [*hidden, {"units": 1}], seed=1, preprocessing={"inputs": {"standard": {}}})
train(small, lattice, g(lattice), optimizer={"adam": {"learning_rate": 0.01}}, schedule={"cosine": {}},
      epochs=400, batch_size=64, seed=1, report_every=100)
rows = np.vstack([worst_rows(3, 23)[0], random.uniform(size=(20000, 3))])
error = np.abs(predict(small, rows).ravel() - g(rows)).max()
assert parameter_count(small) == 1321 and round(parameters[3] / 1321) == 627 and error < 0.156
print(f"learned, d = 3: {parameter_count(small)} parameters, largest error below 0.156")

figure_of_dimensions, (left, middle, right) = figure(3, width=3.7)
side = (np.arange(200) + 0.5) / 200
square = np.array([[a, b] for b in side for a in side])
for axis, values, title in [(left, g(square), "sin 2πx₁ · sin 2πx₂"),
                            (middle, predict(by_hand[2], square), "400 cells, each with an AND unit")]:
    axis.imshow(values.reshape(200, 200), origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r")
    axis.set(title=title, xlabel="x₁", ylabel="x₂")
    axis.grid(False)
dimensions = [1, 2, 3]
right.plot(dimensions, parameters.values(), "o-", label="parameters")
right.plot(dimensions, [20, 20**2, 23**3], "s-", label="cells")
right.set(title="One error, three dimensions", xlabel="dimensions", yscale="log", xticks=dimensions)
right.legend()
save(figure_of_dimensions, "05_dimensions.png")


def seconds(model, rows):
    """The fastest of five predictions."""
    times = []
    for _ in range(5):
        start = perf_counter()
        predict(model, rows)
        times.append(perf_counter() - start)
    return min(times)


networks = [(f"cells, d = {dimensions}", dimensions, model) for dimensions, model in by_hand.items()]
milliseconds = {}
figure_of_time, axis = figure(height=3)
for name, dimensions, model in [*networks, ("learned, d = 3", 3, small)]:
    milliseconds[name] = 1000 * seconds(model, random.uniform(size=(1000, dimensions)))
    print(f"{name}: {milliseconds[name]:.1f} ms for 1000 rows")
    axis.plot(parameter_count(model), milliseconds[name], "o" if model != small else "s", label=name)
assert milliseconds["cells, d = 1"] < milliseconds["cells, d = 3"]
axis.set(title="The time of a prediction", xlabel="parameters", ylabel="milliseconds for 1000 rows")
axis.set(xscale="log", yscale="log")
axis.legend()
save(figure_of_time, "05_time.svg")
