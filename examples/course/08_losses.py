"""Lesson 8: losses. The page is docs/course/08_losses.md."""

import numpy as np
from scipy import optimize, special, stats
from sklearn.linear_model import QuantileRegressor

from course import create, figure, get_weights, gradients, predict, save, train

random = np.random.default_rng(8)
x = np.linspace(-5, 5, 31)
y = 1 + 2 * x + random.normal(0, 1, len(x))
outliers = [25, 27, 29]
y[outliers] -= 30

error = "(y_pred - y_true)"
losses = {
    "squared": {"squared_error": {}},
    "absolute": {"absolute_error": {}},
    "Huber": {"huber": {"delta": 1}},
    "Cauchy": {"custom": {"expression": f"log(1 + {error}^2)"}},
    "Tukey": {"custom": {"expression": f"where(abs{error} < 4, 8/3 * (1 - (1 - ({error} / 4)^2)^3), 8/3)"}},
}


def line(slope, intercept):
    """One identity unit."""
    return create(1, [{"units": 1}], weights=[([[slope]], [intercept])])


def fit(loss, targets, start=(0, 0), **options):
    """Slope and intercept where the mean loss is least: by L-BFGS, unless the options say otherwise."""
    model = line(*start)
    train(model, x, targets, loss=loss, seed=0, **({"optimizer": {"lbfgs": {}}, "epochs": 200} | options))
    (W, b), = get_weights(model)
    return np.array([W[0, 0], b[0]])


def fit_all(targets):
    fits = {"squared": fit(losses["squared"], targets), "Huber": fit(losses["Huber"], targets)}
    steps = {"optimizer": {"adam": {"learning_rate": 0.1}}, "schedule": {"exponential": {"gamma": 0.99}}}
    fits["absolute"] = fit(losses["absolute"], targets, epochs=1500, batch_size=len(x), **steps)
    for name in ["Cauchy", "Tukey"]:
        fits[name] = fit(losses[name], targets, start=fits["Huber"])
    return fits


further = y.copy()
further[outliers] -= 270
fits, fits_further = fit_all(y), fit_all(further)
for name in losses:
    (slope, intercept), further_slope = fits[name], fits_further[name][0]
    print(f"{name:9} slope {slope:.3f}, intercept {intercept:+.3f}; 300 below: slope {further_slope:.3f}")

assert abs(fits["squared"][0] - 2) > 1 and abs(fits_further["squared"][0] - 2) > 10
for name in ["absolute", "Huber", "Cauchy", "Tukey"]:
    assert abs(fits[name][0] - 2) < 0.1
    change = np.abs(fits_further[name] - fits[name]).max()
    assert 1e-4 < change < 0.05 if name == "Cauchy" else change < 1e-5


def residuals(fitted):
    return fitted[0] * x + fitted[1] - y


def minus_tukey(fitted):
    return -(np.maximum(0, 1 - (residuals(fitted) / 4) ** 2) ** 3).mean()


columns = np.column_stack([x, np.ones(len(x))])
median = QuantileRegressor(quantile=0.5, alpha=0).fit(x[:, None], y)
others = {
    "squared": np.linalg.lstsq(columns, y)[0],
    "absolute": np.array([median.coef_[0], median.intercept_]),
    "Huber": optimize.minimize(lambda fitted: special.huber(1, residuals(fitted)).mean(), [0, 0], tol=1e-9).x,
    "Cauchy": optimize.least_squares(residuals, fits["Huber"], loss="cauchy", xtol=1e-12, ftol=1e-12).x,
    "Tukey": optimize.minimize(minus_tukey, fits["Huber"], tol=1e-9).x,
}
for name, other in others.items():
    assert np.allclose(fits[name], other, rtol=0, atol=1e-6 if name == "squared" else 1e-5)
without = np.linalg.lstsq(np.delete(columns, outliers, axis=0), np.delete(y, outliers))[0]
print(f"least squares without the outliers: slope {without[0]:.3f}, intercept {without[1]:+.3f}")
assert np.allclose(fits["Tukey"], without, rtol=0, atol=0.05)

errors = np.linspace(-6, 6, 193)
values, pulls = {}, {}
for name, loss in losses.items():
    answer = gradients(line(1, 0), errors, np.zeros(len(errors)), loss=loss, reduction="REDUCTION_SUM")
    values[name], pulls[name] = answer.row_losses, answer.layers[0].delta[:, 0]
    print(f"{name:9} derivative at an error of 6: {pulls[name][-1]:.3f}")

assert np.allclose(pulls["squared"], 2 * errors) and np.allclose(pulls["absolute"], np.sign(errors))
assert np.allclose(pulls["Huber"], np.clip(errors, -1, 1))
assert np.allclose(pulls["Cauchy"], 2 * errors / (1 + errors**2))
assert np.allclose(pulls["Tukey"], np.where(abs(errors) < 4, errors * (1 - (errors / 4) ** 2) ** 2, 0))

figure_of_outliers, (left, middle, right) = figure(3, width=4.1, height=3.9)
left.scatter(x, y, s=16, color="#5c677d", zorder=3)
left.text(2.7, y[27], "outliers", color="#5c677d", ha="right", va="center")
for number, name in enumerate(losses):
    dashes = (2 * number, (2, 6)) if number else "-"
    left.plot(x, fits[name][0] * x + fits[name][1], lw=2.5, ls=dashes)
    middle.plot(errors, values[name], label=name)
    right.plot(errors, pulls[name])
left.set(title="Five fits: one follows the outliers", xlabel="x", ylabel="y")
middle.set(title="The losses", xlabel="error ŷ − y", ylabel="loss l", ylim=(-0.2, 7))
right.set(title="Their slopes: the pull of a point", xlabel="error ŷ − y", ylabel="dl / dŷ", ylim=(-3, 3))
figure_of_outliers.legend(loc="outside lower center", ncols=5)
save(figure_of_outliers, "08_outliers.svg")

noises = {"squared": stats.norm(scale=np.sqrt(1 / 2)), "absolute": stats.laplace(), "Cauchy": stats.cauchy()}
constants = {"squared": np.log(np.pi) / 2, "absolute": np.log(2), "Cauchy": np.log(np.pi)}
for name, noise in noises.items():
    loss = gradients(line(*fits[name]), x, y, loss=losses[name]).loss
    likelihood = noise.logpdf(residuals(fits[name])).mean()
    print(f"{name:9} −log-likelihood {-likelihood:.3f} = loss {loss:.3f} + {constants[name]:.3f}")
    assert np.isclose(-likelihood, loss + constants[name], rtol=1e-12)

q = np.array([0.7, 0.3])
entropy = -(q * np.log(q)).sum()
beliefs = np.linspace(0.02, 0.98, 97)
coin = create(1, [{"units": 2, "activation": "ACTIVATION_SOFTMAX"}], weights=[([[1, 0]], [0, 0])])
logits, truth = np.log(beliefs / (1 - beliefs)), np.tile(q, (len(beliefs), 1))
cross_entropy = gradients(coin, logits, truth, loss={"softmax_cross_entropy": {}}).row_losses
divergence = gradients(coin, logits, truth, loss={"kl_divergence": {}}).row_losses
fair = gradients(coin, [0], [[0.5, 0.5]], loss={"softmax_cross_entropy": {}}).loss
print(f"a fair coin: {fair:.4f} nats = {fair / np.log(2):.0f} bit")
print(f"q = 0.7: entropy {entropy:.4f} nats = {entropy / np.log(2):.4f} bits")
print(f"cross-entropy is least at p = {beliefs[np.argmin(cross_entropy)]:.2f}")

assert np.isclose(fair, np.log(2), rtol=1e-14)
assert np.allclose(np.subtract(cross_entropy, divergence), entropy, rtol=0, atol=1e-12)
assert np.isclose(beliefs[np.argmin(cross_entropy)], 0.7) and abs(min(divergence)) < 1e-12

figure_of_entropy, axis = figure(width=5.6)
bits = np.array(cross_entropy) / np.log(2)
axis.plot(beliefs, bits, label="cross-entropy of q = 0.7 and p")
axis.axhline(entropy / np.log(2), color="#2a9d8f", ls="--", label="entropy of q")
axis.fill_between(beliefs, entropy / np.log(2), bits, alpha=0.15, label="Kullback–Leibler divergence")
axis.set(title="To believe p where q is true costs bits", xlabel="p", ylabel="bits a toss", ylim=(0, 4))
axis.legend()
save(figure_of_entropy, "08_entropy.svg")

letters, word = np.unique(list("mississippi"), return_inverse=True)
frequencies = np.bincount(word) / len(word)
nothing = np.zeros(len(word))
model = create(1, [{"units": 4, "activation": "ACTIVATION_SOFTMAX", "initializer": {"zeros": {}}}])
before = predict(model, nothing)
result = train(model, nothing, word, optimizer={"lbfgs": {}}, epochs=50, seed=0)
after = predict(model, nothing)
loss = gradients(model, nothing, word).loss
print("learned:    ", *(f" {letter} {p:.3f}" for letter, p in zip(letters, after[0])))
print("frequencies:", *(f" {letter} {p:.3f}" for letter, p in zip(letters, frequencies)))
print(f"bits a letter: {result.losses[0] / np.log(2):.3f} at first, {loss / np.log(2):.3f} at last")

of_each_letter = np.arange(len(word)), word
assert np.isclose(result.losses[0], -np.log(before[of_each_letter]).mean(), rtol=1e-12)
assert np.isclose(loss, -np.log(after[of_each_letter]).mean(), rtol=1e-12)
assert np.allclose(after, frequencies, rtol=0, atol=1e-6)
assert np.isclose(loss, -(frequencies * np.log(frequencies)).sum(), rtol=0, atol=1e-10)

rows, classes = random.normal(size=(20, 5)), random.integers(0, 3, 20)
weights = [(random.normal(size=(5, 3)), random.normal(size=3))]
softmax = create(5, [{"units": 3, "activation": "ACTIVATION_SOFTMAX"}], weights)
log_softmax = create(5, [{"units": 3, "activation": "ACTIVATION_LOG_SOFTMAX"}], weights)
one = gradients(softmax, rows, classes, loss={"softmax_cross_entropy": {}})
other = gradients(log_softmax, rows, classes, loss={"negative_log_likelihood": {}})
print(f"softmax, cross-entropy: {one.loss:.4f}; log-softmax, negative log-likelihood: {other.loss:.4f}")
assert one.loss == other.loss and (one.layers[0].weights == other.layers[0].weights).all()

tosses, W, b = random.integers(0, 2, 20), random.normal(size=(5, 2)), random.normal(size=2)
two = create(5, [{"units": 2, "activation": "ACTIVATION_SOFTMAX"}], [(W, b)])
difference = W[:, [1]] - W[:, [0]], [b[1] - b[0]]
single = create(5, [{"units": 1, "activation": "ACTIVATION_SIGMOID"}], [difference])
of_two, of_single = gradients(two, rows, tosses), gradients(single, rows, tosses)
print(f"softmax of two: {of_two.loss:.4f}; sigmoid of the difference: {of_single.loss:.4f}")
assert np.allclose(predict(two, rows)[:, [1]], predict(single, rows), rtol=0, atol=1e-14)
assert np.isclose(of_two.loss, of_single.loss, rtol=1e-13)
assert np.allclose(of_two.layers[0].weights, of_single.layers[0].weights * [-1, 1], rtol=0, atol=1e-14)
assert np.allclose(of_two.inputs, of_single.inputs, rtol=0, atol=1e-14)

sigmoid = [{"units": 1, "activation": "ACTIVATION_SIGMOID"}]
both = {"binary cross-entropy": {"binary_cross_entropy": {}}, "squared error": {"squared_error": {}}}
z = np.linspace(-8, 8, 161)
model = create(1, sigmoid, weights=[([[1]], [0])])
p = predict(model, z)
deltas = {}
for name, loss in both.items():
    for target in [0, 1]:
        answer = gradients(model, z, np.full(len(z), target), loss=loss, reduction="REDUCTION_SUM")
        deltas[name] = answer.layers[0].delta
        formula = p - target if name == "binary cross-entropy" else 2 * (p - target) * p * (1 - p)
        assert np.allclose(deltas[name], formula, rtol=1e-12, atol=1e-15)
    print(f"{name}: δ = {deltas[name][20, 0]:.4f} at z = −6, y = 1")

progress = {}
for name, loss in both.items():
    model = create(1, sigmoid, weights=[([[0]], [-6])])
    result = train(model, [0], [1], loss=loss, optimizer={"sgd": {"learning_rate": 1}}, epochs=400, seed=0)
    progress[name] = np.exp(-result.losses) if name == "binary cross-entropy" else 1 - np.sqrt(result.losses)
    halfway = 1 + np.argmax(progress[name] > 0.5)
    print(f"{name}: p > ½ from epoch {halfway} on; p = {progress[name][99]:.3f} in epoch 100")
assert progress["binary cross-entropy"][9] > 0.7 and progress["binary cross-entropy"][99] > 0.98
assert progress["squared error"][99] < 0.01 and progress["squared error"][199] < 0.1

figure_of_deltas, (left, right) = figure(2, width=4.6)
for name in both:
    left.plot(z, deltas[name], label=name)
    right.semilogx(np.arange(1, 401), progress[name])
left.axvline(-6, color="#5c677d", lw=1, ls=":")
left.text(-5.8, -0.55, "starts here", color="#5c677d")
left.set(title="δ of a sigmoid unit whose target is 1", xlabel="z", ylabel="δ")
right.set(title="The same unit trained from z = −6", xlabel="epoch (logarithmic)", ylabel="p, wanted: 1")
left.legend()
save(figure_of_deltas, "08_deltas.svg")
