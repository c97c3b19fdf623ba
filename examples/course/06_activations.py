"""Lesson 6: activations, and what makes gradients vanish. The page is docs/course/06_activations.md."""

import math

import grpc
import numpy as np

from course import create, features, figure, get_weights, gradients, pb, plt, predict
from course import save, set_weights, train

contract = pb.DESCRIPTOR.pool.FindEnumTypeByName("epochd.v1.Activation").values
names = [value.name.removeprefix("ACTIVATION_") for value in contract if value.number > 0]
flat = ["SIGN", "STEP"]
of_a_row = {"SOFTMAX": {"custom": {"expression": "-sum(y_pred * y_true)"}},
            "LOG_SOFTMAX": {"negative_log_likelihood": {}}}


def bare(name, units=1):
    """A layer without bias whose weights are the identity: it computes φ(z) of its inputs z."""
    layer = {"units": units, "activation": f"ACTIVATION_{name}", "bias": False}
    return create(units, [layer], [(np.eye(units), None)])


def values(name, z):
    return predict(bare(name), z).ravel()


def derivatives(name, z):
    """The gradient of the loss Σ φ(z) by the inputs z."""
    loss = {"custom": {"expression": "y_pred"}}
    return gradients(bare(name), z, np.zeros(len(z)), loss=loss, reduction="REDUCTION_SUM").inputs.ravel()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softplus(z):
    return np.log(1 + np.exp(z))


def normal(z):
    """The distribution function of the standard normal distribution."""
    return (1 + np.vectorize(math.erf)(z / np.sqrt(2))) / 2


def nearly_normal(z):
    """Hendrycks and Gimpel's approximation of it; (1 + tanh u) / 2 is sigmoid(2u)."""
    return sigmoid(np.sqrt(8 / np.pi) * (z + 0.044715 * z**3))


lam, alpha = 1.0507009873554805, 1.6732632423543772
formulas = {
    "IDENTITY": (lambda z: z, np.ones_like),
    "SIGN": (np.sign, None),
    "STEP": (lambda z: z > 0, None),
    "SIGMOID": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "TANH": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "RELU": (lambda z: np.maximum(0, z), lambda z: z > 0),
    "LEAKY_RELU": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "ELU": (lambda z: np.where(z > 0, z, np.exp(z) - 1), lambda z: np.where(z > 0, 1, np.exp(z))),
    "SELU": (lambda z: lam * np.where(z > 0, z, alpha * (np.exp(z) - 1)),
             lambda z: lam * np.where(z > 0, 1, alpha * np.exp(z))),
    "SOFTPLUS": (softplus, sigmoid),
    "SOFTSIGN": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "EXPONENTIAL": (np.exp, np.exp),
    "HARD_SIGMOID": (lambda z: np.clip(z + 3, 0, 6) / 6, lambda z: (np.abs(z) < 3) / 6),
    "GELU": (lambda z: z * normal(z), lambda z: normal(z) + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)),
    "GELU_TANH": (lambda z: z * nearly_normal(z),
                  lambda z: nearly_normal(z) + z * nearly_normal(z) * (1 - nearly_normal(z))
                  * np.sqrt(8 / np.pi) * (1 + 3 * 0.044715 * z**2)),
    "SILU": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z))),
    "MISH": (lambda z: z * np.tanh(softplus(z)),
             lambda z: np.tanh(softplus(z)) + z * (1 - np.tanh(softplus(z)) ** 2) * sigmoid(z)),
}
assert {*formulas, *of_a_row} == set(names)
z, h = np.linspace(-4, 4, 100), 1e-5
with_kinks = np.append(z, [-3, 0, 3])
steepest = {}

print("                φ(-2)    φ(0)    φ(2)  φ'(-2)   φ'(0)   φ'(2)  largest φ'")
for name, (value, slope) in formulas.items():
    assert np.allclose(values(name, with_kinks), value(with_kinks), rtol=1e-12, atol=1e-12)
    if name not in flat:
        slopes = derivatives(name, with_kinks)
        numeric = (values(name, z + h) - values(name, z - h)) / (2 * h)
        assert np.allclose(slopes, slope(with_kinks), rtol=1e-12, atol=1e-12)
        assert np.allclose(slopes[:100], numeric, rtol=1e-7, atol=1e-8)
        steepest[name] = slopes.max()
        row = [*values(name, [-2, 0, 2]), *derivatives(name, [-2, 0, 2]), steepest[name]]
        print(f"{name:13}" + "".join(f"{number:8.3f}" for number in row))

assert derivatives("SIGMOID", [0.0]) == 0.25 > derivatives("SIGMOID", z).max()
assert derivatives("TANH", [0.0]) == 1 > derivatives("TANH", z).max()
assert [derivatives(name, [0.0]) for name in ["RELU", "LEAKY_RELU", "ELU"]] == [0, 0.01, 1]
assert abs(derivatives("SELU", [0.0]) - lam * alpha) < 1e-12 and steepest["SELU"] > 1.758
assert [steepest[name] for name in ["SIGMOID", "TANH", "SOFTSIGN", "RELU", "ELU"]] == [0.25, 1, 1, 1, 1]
assert (derivatives("HARD_SIGMOID", [-3.0, 3.0]) == 0).all()


def refusal(model, loss):
    """What ComputeGradients says instead of giving gradients."""
    try:
        gradients(model, z, np.ones(100), loss=loss)
    except grpc.RpcError as error:
        print(error.code().name, "-", error.details())
        return error.code().name + error.details()
    raise AssertionError("there are gradients")


for name in flat:
    for loss in [{"squared_error": {}}, {"hinge": {}}, {"custom": {"expression": "y_pred"}}]:
        said = refusal(bare(name), loss)
        assert said.startswith("INVALID_ARGUMENT") and said.endswith("use perceptron")
    said = refusal(create(1, [{"units": 1, "activation": f"ACTIVATION_{name}"}, {"units": 1}]), loss)
    assert said.startswith("FAILED_PRECONDITION") and "which is flat" in said


def derivatives_of_chosen(name, rows, chosen):
    """The derivatives of one output a row, where `chosen` is 1, by all its inputs."""
    model = bare(name, units=rows.shape[1])
    return -gradients(model, rows, chosen, loss=of_a_row[name], reduction="REDUCTION_SUM").inputs


three = np.array([[1.0, 0.0, -1.0]])
p = predict(bare("SOFTMAX", units=3), three)[0]
exact = {"SOFTMAX": np.diag(p) - np.outer(p, p), "LOG_SOFTMAX": np.eye(3) - p}
for name in of_a_row:
    model = bare(name, units=3)
    jacobian = derivatives_of_chosen(name, np.tile(three, (3, 1)), np.eye(3))
    numeric = (predict(model, three + h * np.eye(3)) - predict(model, three - h * np.eye(3))).T / (2 * h)
    assert np.allclose(jacobian, exact[name], rtol=1e-12)
    assert np.allclose(jacobian, numeric, rtol=1e-7, atol=1e-8)
    print(f"{name} of (1, 0, -1):", predict(model, three)[0].round(3))
    print(jacobian.round(3))

pairs = np.stack([z, np.zeros(100)], axis=1)
assert np.allclose(p, np.exp(three) / np.exp(three).sum(), rtol=1e-12)
assert np.allclose(predict(bare("LOG_SOFTMAX", units=3), three), np.log(p), rtol=1e-12)
assert np.allclose(predict(bare("SOFTMAX", units=2), pairs)[:, 0], values("SIGMOID", z), rtol=1e-12)

kinks = {"SIGN": [0], "STEP": [0], "RELU": [0], "LEAKY_RELU": [0], "SELU": [0], "HARD_SIGMOID": [-3, 3]}
gallery, axes = plt.subplots(4, 5, figsize=(13, 9.5), layout="constrained", sharey=True)
for axis, name in zip(axes.flat, [*formulas, *of_a_row]):
    if name in of_a_row:
        value = predict(bare(name, units=2), pairs)[:, 0]
        slope = derivatives_of_chosen(name, pairs, np.tile([1, 0], (100, 1)))[:, 0]
    else:
        value, slope = values(name, z), np.full(100, np.nan) if name in flat else derivatives(name, z)
    jumps = np.searchsorted(z, kinks.get(name, []))
    for curve, style, breaks in [(value, "-", jumps if name in flat else []), (slope, "--", jumps)]:
        axis.plot(np.insert(z, breaks, np.nan), np.insert(curve, breaks, np.nan), style, lw=2)
    note = {**dict.fromkeys(flat, ", without φ′"), **dict.fromkeys(of_a_row, " of (z, 0), first")}
    axis.set(title=name + note.get(name, ""), xlabel="z", xlim=(-4, 4), ylim=(-2.2, 3.2), xticks=[-3, 0, 3])
    axis.title.set_size(10)
axes[3, 4].legend(axes[0, 0].lines, ["φ(z)", "φ′(z)"], loc="center", fontsize=14)
axes[3, 4].set_axis_off()
save(gallery, "06_gallery.png")

generator = np.random.default_rng(6)
X = generator.standard_normal((64, 16))
y = X[:, 0] + X[:, 1] > 0
seeds = range(20)


def deep(activation, seed, **options):
    """Ten hidden layers of 16 units, and a sigmoid output."""
    layer = {"units": 16, "activation": f"ACTIVATION_{activation}", **options}
    return create(16, [layer] * 10 + [{"units": 1, "activation": "ACTIVATION_SIGMOID"}], seed=seed)


networks = {
    "sigmoid": lambda seed: deep("SIGMOID", seed),
    "tanh": lambda seed: deep("TANH", seed),
    "ReLU": lambda seed: deep("RELU", seed),
    "ELU": lambda seed: deep("ELU", seed),
    "sigmoid, batch norm": lambda seed: deep("SIGMOID", seed, batch_normalization={}),
}


def lengths(model, what):
    """The Frobenius norm of each hidden layer's `weights` (their gradient) or `delta`."""
    return np.array([np.linalg.norm(getattr(layer, what)) for layer in gradients(model, X, y).layers[:10]])


measured = {
    "sigmoid": [3.5e-6, 9.7e-7, 4.4e-5], "tanh": [0.95, 0.32, 3.1], "ReLU": [0.66, 0.11, 6.3],
    "ELU": [0.62, 0.18, 1.5], "sigmoid, batch norm": [0.85, 0.43, 1.7],
}
by_layer = {}
print("first over last      median  smallest   largest")
for name, network in networks.items():
    norms = by_layer[name] = np.array([lengths(network(seed), "weights") for seed in seeds])
    ratio = norms[:, 0] / norms[:, -1]
    row = [np.median(ratio), ratio.min(), ratio.max()]
    print(f"{name:19}{row[0]:8.1e}{row[1]:10.1e}{row[2]:10.1e}")
    assert np.allclose(row, measured[name], rtol=0.05, atol=0)
    assert ratio.max() < 1e-4 if name == "sigmoid" else 0.1 < ratio.min() < ratio.max() < 10

figure_of_norms, axis = figure(width=6.5, height=4)
for name, norms in by_layer.items():
    axis.semilogy(range(1, 11), np.median(norms / norms[:, [-1]], axis=0), "o-", label=name)
axis.set(title="The gradient on its way back", xlabel="hidden layer", xticks=range(1, 11))
axis.set_ylabel("norm of the weights' gradient,\nover that of layer 10 (median)")
axis.legend()
save(figure_of_norms, "06_vanishing.svg")


def factors(model):
    """From a layer to the one before, tenth to first: what Wᵀ and what φ′ do to the length of δ."""
    delta = [layer.delta for layer in gradients(model, X, y).layers]
    for layer, (W, _) in list(enumerate(get_weights(model)))[9:0:-1]:
        after, between, before = map(np.linalg.norm, [delta[layer], delta[layer] @ W.T, delta[layer - 1]])
        yield between / after, before / between


print("a layer       Wᵀ     φ'  together")
for name in ["sigmoid", "tanh", "ReLU", "ELU"]:
    each = np.array([list(factors(networks[name](seed))) for seed in seeds])
    by_W, by_slope = each.mean(axis=(0, 1))
    print(f"{name:9}{by_W:7.2f}{by_slope:7.2f}{by_W * by_slope:10.2f}")
    assert each[:, :, 1].max() <= (0.25 if name == "sigmoid" else 1)
    assert 0.8 < by_W * by_slope < 1.1 or name == "sigmoid" and 0.18 < by_W * by_slope < 0.25


def rescaled(activation, scale, shift, seed):
    """The network of `scale` times the activation plus `shift`, by way of the next layers' weights."""
    model = deep(activation, seed, initializer={"glorot_uniform": {}})
    first, *others = get_weights(model)
    set_weights(model, [first] + [(scale * W, b + shift * W.sum(axis=0)) for W, b in others])
    return model


networks["4σ − 2"] = lambda seed: rescaled("SIGMOID", 4, -2, seed)
networks["ELU / 4"] = lambda seed: rescaled("ELU", 1 / 4, 0, seed)
cases = [
    ("sigmoid", "SIGMOID", 1, 0), ("ELU / 4", "ELU", 1 / 4, 0),
    ("tanh", "TANH", 1, 0), ("4σ − 2", "SIGMOID", 4, -2), ("sigmoid, batch norm", "SIGMOID", 1, 0),
]
print("                    φ(-50)   φ(50)  largest φ'  δ first over last  a layer")
for name, activation, scale, shift in cases:
    low, high = scale * values(activation, [-50.0, 50.0]) + shift
    slope = scale * derivatives(activation, with_kinks).max()
    norms = np.array([lengths(networks[name](seed), "delta") for seed in seeds])
    ratio = np.median(norms[:, 0] / norms[:, -1])
    a_layer = ratio ** (1 / 9)
    print(f"{name:19}{low:7.2f}{high:8.2f}{slope:12.2f}{ratio:19.1e}{a_layer:9.2f}")
    assert (high > 10) == (name == "ELU / 4") and slope == (1 if name in ["tanh", "4σ − 2"] else 0.25)
    assert 0.2 < a_layer < 0.25 if name in ["sigmoid", "ELU / 4"] else 0.8 < a_layer < 1.1


def spreads(model):
    """The standard deviations of z over the rows, before batch normalization, in layers 2 to 10."""
    a, found = X, []
    for W, _ in get_weights(model)[:10]:
        product = a @ W
        found.append(product.std(axis=0))
        a = sigmoid((product - product.mean(axis=0)) / found[-1])
    return found[1:]


spread = np.mean([spreads(networks["sigmoid, batch norm"](seed)) for seed in seeds])
print(f"standard deviation of z in layers 2 to 10, before batch normalization: {spread:.2f}")
assert 0.19 < spread < 0.21

flattest, tanh_features = (features(deep(name, 0), X, 9).std(axis=0) for name in ["SIGMOID", "TANH"])
assert flattest.max() < 1e-5 < 0.1 < tanh_features.max()

share = y.mean()
entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
sgd = {"sgd": {"learning_rate": 0.1}}
print(f"entropy of the targets: {entropy:.3f}")
print("largest loss of three seeds after 300 epochs")
picture, axis = figure(width=6.5, height=4)
largest = []
for number, (name, network) in enumerate(networks.items()):
    options = {"optimizer": sgd, "batch_size": 64, "epochs": 300}
    runs = np.array([train(network(seed), X, y, seed=seed, **options).losses for seed in range(3)])
    style = "-" if number < 6 else "--"
    axis.plot(range(1, 301), runs.T, style, color=f"C{number}", lw=1.2, label=[name, "_", "_"])
    largest.append(runs[:, -1].max())
    print(f"{name:19}{largest[-1]:7.3f}")
assert np.abs(np.array(largest) - [0.681, 0.003, 0.001, 0.001, 0.030, 0.030, 0.681]).max() < 6e-4
assert max(abs(largest[0] - entropy), abs(largest[-1] - entropy)) < 1e-4
axis.set(title="Ten hidden layers, three seeds each", xlabel="epoch", ylabel="binary cross-entropy")
axis.set_ylim(0, 0.95)
axis.legend(loc="center right", bbox_to_anchor=(1, 0.44))
save(picture, "06_training.svg")

points = np.linspace(-1, 1, 64)[:, None]
wave = np.sin(np.pi * points)


def too_fast_then_well(activation, seed):
    """Ten epochs at a rate that is too large, then 800 at a good one; and the first layer between them."""
    model = create(1, [{"units": 32, "activation": f"ACTIVATION_{activation}"}, {"units": 1}], seed=seed)
    options = {"batch_size": 64, "seed": seed, "diagnostics": True}
    fast = train(model, points, wave, optimizer={"sgd": {"learning_rate": 0.3}}, epochs=10, **options)
    is_silent = (features(model, points, 0) <= 0).all(axis=0)
    between = gradients(model, points, wave).layers[0]
    has_no_gradient = (between.weights[0] == 0) & (between.bias == 0)
    assert (has_no_gradient == (is_silent if activation == "RELU" else False)).all()
    well = train(model, points, wave, optimizer={"adam": {"learning_rate": 0.01}}, epochs=800, **options)
    dead = np.array([round(32 * report.diagnostics[0].dead_units) for report in fast.epochs + well.epochs])
    return model, dead, well.losses[-1]


relus = [too_fast_then_well("RELU", seed) for seed in range(8)]
leakies = [too_fast_then_well("LEAKY_RELU", seed) for seed in range(8)]
print("         dead ReLUs of 32 in epoch      loss at the end of")
print("seed        1       10      810            ReLU  Leaky ReLU")
for seed, ((relu, dead, relu_loss), (leaky, leaky_dead, leaky_loss)) in enumerate(zip(relus, leakies)):
    print(f"{seed:4}{dead[0]:9}{dead[9]:9}{dead[-1]:9}{relu_loss:16.3f}{leaky_loss:12.3f}")
    assert dead[9] >= 6 and (np.diff(dead) >= 0).all() and (leaky_dead == 0).all()
    assert leaky_loss < relu_loss + 1e-3
    assert dead[-1] < 32 or np.ptp(predict(relu, points)) == 0 and abs(relu_loss - wave.var()) < 1e-3
    start, leaky_start = [get_weights(model, version=1)[0][0] for model in [relu, leaky]]
    assert (start == leaky_start).all()

learned = [sum(loss < 0.01 for _, _, loss in runs) for runs in [relus, leakies]]
print(f"learned the sine (loss below 0.01): ReLU {learned[0]} of 8, Leaky ReLU {learned[1]} of 8")
line = np.polyval(np.polyfit(points.ravel(), wave.ravel(), 1), points)
line_loss = ((line - wave) ** 2).mean()
print(f"loss of the best straight line: {line_loss:.3f}")
fires = features(leakies[6][0], points, 0) > 0
assert learned == [2, 6] and abs(line_loss - leakies[6][2]) < 1e-3 and (fires == fires[0]).all()

picture, (left, right) = figure(2, width=5)
for seed, (_, dead, _) in enumerate(relus):
    left.semilogx(range(1, 811), dead, color=plt.cm.viridis(seed / 8), label=f"seed {seed}")
left.axvspan(1, 10, color="#d1495b", alpha=0.12, lw=0, label="rate too large")
left.set(title="Dead ReLUs stay dead", xlabel="epoch", ylabel="dead units of 32", xlim=(1, 810))
left.legend(fontsize=8, loc="lower right", ncols=2)
right.plot(points, wave, color="#bbbbbb", lw=5, label="target")
right.plot(points, predict(relus[1][0], points), lw=2, label="ReLU, all dead")
right.plot(points, predict(leakies[1][0], points), lw=2, label="Leaky ReLU")
right.set(title="From the same weights (seed 1)", xlabel="x", ylabel="output")
right.legend()
save(picture, "06_dead.svg")
