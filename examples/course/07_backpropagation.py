"""Lesson 7: backpropagation by hand, and its order. The page is docs/course/07_backpropagation.md."""

from collections import Counter

import numpy as np
from matplotlib.colors import ListedColormap

from course import create, figure, get_weights, gradients, predict, save, train

X = np.array([[1.0, 2.0], [-1.0, 1.0]])
y = np.array([[1.0], [0.0]])
W1, b1 = np.array([[1.0, -1.0], [0.5, 1.0]]), np.array([0.0, -1.0])
W2, b2 = np.array([[1.0], [-2.0]]), np.array([0.5])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def show(name, numbers):
    for row in np.atleast_2d(numbers):
        print(f"{name:4}" + "".join(f"{number:10.6f}" for number in row))
        name = ""


z1 = X @ W1 + b1
a1 = sigmoid(z1)
z2 = a1 @ W2 + b2
y_hat = sigmoid(z2)
loss = ((y - y_hat) ** 2).sum()
show("z1", z1)
show("a1", a1)
show("z2", z2)
show("ŷ", y_hat)
show("L", loss)

layers = [{"units": 2, "activation": "ACTIVATION_SIGMOID"}, {"units": 1, "activation": "ACTIVATION_SIGMOID"}]
model = create(2, layers, [(W1, b1), (W2, b2)])
assert np.abs(predict(model, X) - y_hat).max() < 1e-12

delta2 = 2 * (y_hat - y) * y_hat * (1 - y_hat)
delta1 = (delta2 @ W2.T) * a1 * (1 - a1)
show("δ2", delta2)
show("δ1", delta1)

W2_gradient, b2_gradient = a1.T @ delta2, delta2.sum(axis=0)
W1_gradient, b1_gradient = X.T @ delta1, delta1.sum(axis=0)
show("∂W2", W2_gradient)
show("∂b2", b2_gradient)
show("∂W1", W1_gradient)
show("∂b1", b1_gradient)

asked = {"loss": {"squared_error": {}}, "reduction": "REDUCTION_SUM"}
answer = gradients(model, X, y, **asked)
first, second = answer.layers
pairs = [
    (answer.loss, loss),
    (second.delta, delta2), (second.weights, W2_gradient), (second.bias, b2_gradient),
    (first.delta, delta1), (first.weights, W1_gradient), (first.bias, b1_gradient),
    (answer.inputs, delta1 @ W1.T),
]
for theirs, ours in pairs:
    assert np.shape(theirs) == np.shape(ours) and np.abs(theirs - ours).max() < 1e-12
assert delta2.round(6).tolist() == [[-0.195784], [0.164483]]
assert delta1.round(6).tolist() == [[-0.020556, 0.097892], [0.038654, -0.064679]]

rate = 0.5
stepped = [
    (W1 - rate * W1_gradient, b1 - rate * b1_gradient),
    (W2 - rate * W2_gradient, b2 - rate * b2_gradient),
]
for number, (W, b) in enumerate(stepped, 1):
    show(f"W{number}", W)
    show(f"b{number}", b)

train(model, X, y, optimizer={"sgd": {"learning_rate": rate}}, epochs=1, batch_size=2, seed=7, **asked)
for (W, b), (W_by_hand, b_by_hand) in zip(get_weights(model), stepped):
    assert np.abs(W - W_by_hand).max() < 1e-12 and np.abs(b - b_by_hand).max() < 1e-12
after = gradients(model, X, y, **asked).loss
print(f"loss: {loss:.6f}, after one step: {after:.6f}")
assert (round(loss, 6), round(after, 6)) == (0.292861, 0.264037)
assert stepped[0][0].round(6).tolist() == [[1.029605, -1.081285], [0.501229, 0.934448]]
assert stepped[1][0].round(6).tolist() == [[1.055173], [-2.011177]]


def draw(axis, row):
    """The network with the numbers of one row: a above, δ below the units, biases in them."""
    at = {"x1": (0, 1), "x2": (0, 0), "h1": (1, 1), "h2": (1, 0), "ŷ": (2, 0.5)}
    value = dict(zip(at, [*X[row], *a1[row], *y_hat[row]]))
    delta = dict(zip(["h1", "h2", "ŷ"], [*delta1[row], *delta2[row]]))
    bias = dict(zip(["h1", "h2", "ŷ"], [*b1, *b2]))
    edges = [("x1", "h1"), ("x1", "h2"), ("x2", "h1"), ("x2", "h2"), ("h1", "ŷ"), ("h2", "ŷ")]
    for (start, end), weight in zip(edges, [*W1.ravel(), *W2.ravel()]):
        tail, head = np.array(at[start]), np.array(at[end])
        axis.plot(*np.transpose([tail, head]), color="#aaaaaa", lw=1 + abs(weight), zorder=1)
        axis.text(*(0.7 * tail + 0.3 * head), f"{weight:g}", ha="center", va="center",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    for name, (across, up) in at.items():
        axis.scatter(across, up, s=1700, color="white", edgecolor="#444444", zorder=2)
        label = f"{name}\nb = {bias[name]:g}" if name in bias else name
        axis.text(across, up, label, ha="center", va="center", fontsize=9)
        axis.text(across, up + 0.22, f"{value[name]:.4g}", ha="center", color="#1f6feb", weight="bold")
        if name in delta:
            axis.text(across, up - 0.3, f"{delta[name]:.4f}", ha="center", color="#d1495b", weight="bold",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axis.text(2, 1.3, "a, forward →", ha="center", color="#1f6feb", weight="bold")
    axis.text(2, 1.12, "← δ, backward", ha="center", color="#d1495b", weight="bold")
    for text in axis.texts:
        text.set_text(text.get_text().replace("-", "−"))
    axis.set(title=f"row {row + 1}, target {y[row, 0]:g}", xlim=(-0.35, 2.45), ylim=(-0.45, 1.45))
    axis.set_axis_off()


picture, axes = figure(2, width=5.6, height=3.8)
for row, axis in enumerate(axes):
    draw(axis, row)
save(picture, "07_network.svg")

counted = Counter()


def times(A, B):
    """The matrix product, its multiplications counted."""
    counted["multiplications"] += A.shape[0] * A.shape[1] * B.shape[1]
    return A @ B


def scaled(A, factors):
    """A with each of its columns times a factor, counted."""
    counted["multiplications"] += A.size
    return A * factors


def values(weights, x):
    """The inputs of all layers, and the output."""
    a = [x]
    for W, b in weights:
        a.append(np.tanh(times(a[-1], W) + b))
    return a


def reverse_order(weights, a, by_output):
    """From the last layer to the first, each δ from the one after it."""
    deltas = [scaled(by_output, 1 - a[-1] ** 2)]
    for layer in range(len(weights) - 1, 0, -1):
        counted[f"W{layer + 1}"] += 1
        deltas.insert(0, scaled(times(deltas[0], weights[layer][0].T), 1 - a[layer] ** 2))
    return deltas


def forward_order(weights, a, by_output):
    """For each layer from its own z on: ∂a/∂z for every later a, the last of them times ∂L/∂ŷ."""
    deltas = []
    for start in range(len(weights)):
        jacobian = np.diag(1 - a[start + 1][0] ** 2)
        for layer in range(start + 1, len(weights)):
            counted[f"W{layer + 1}"] += 1
            jacobian = scaled(times(jacobian, weights[layer][0]), 1 - a[layer + 1] ** 2)
        deltas.append(times(by_output, jacobian.T))
    return deltas


def weight_gradients(order, weights, x, target):
    a = values(weights, x)
    counted.clear()
    deltas = order(weights, a, 2 * (a[-1] - target))
    return deltas, [times(before.T, delta) for before, delta in zip(a, deltas)]


generator = np.random.default_rng(7)
x, target = generator.standard_normal((1, 8)), generator.uniform(-1, 1, (1, 8))
deep = create(8, [{"units": 8, "activation": "ACTIVATION_TANH"}] * 6, seed=7)
answer = gradients(deep, x, target, **asked)
for order in [reverse_order, forward_order]:
    deltas, by_weights = weight_gradients(order, get_weights(deep), x, target)
    for layer, delta, by_W in zip(answer.layers, deltas, by_weights):
        assert np.abs(layer.delta - delta).max() < 1e-12 and np.abs(layer.weights - by_W).max() < 1e-12
    uses = [counted[f"W{layer}"] for layer in range(2, 7)]
    print(f"{order.__name__}: {counted['multiplications']} multiplications; W2 to W6 used {uses} times")
    assert uses == ([1, 1, 1, 1, 1] if order is reverse_order else [1, 2, 3, 4, 5])

width, depths = 8, np.array([1, 2, 4, 8, 16, 32])
x, target = generator.standard_normal((1, width)), generator.uniform(-1, 1, (1, width))
counts = {"forward pass": [], "reverse order": [], "forward order": []}
for depth in depths:
    drawn = generator.standard_normal((depth, width, width)) / np.sqrt(width)
    weights = [(W, np.zeros(width)) for W in drawn]
    counted.clear()
    values(weights, x)
    counts["forward pass"].append(counted["multiplications"])
    _, by_reverse = weight_gradients(reverse_order, weights, x, target)
    counts["reverse order"].append(counted["multiplications"])
    _, by_forward = weight_gradients(forward_order, weights, x, target)
    counts["forward order"].append(counted["multiplications"])
    assert np.allclose(by_reverse, by_forward, rtol=1e-9, atol=1e-12)

print("layers  forward pass  reverse order  forward order")
for depth, *row in zip(depths, *counts.values()):
    print(f"{depth:6}{row[0]:14}{row[1]:15}{row[2]:15}")
    n, pairs_of_layers = width, depth * (depth - 1) // 2
    assert row[0] == depth * n**2
    assert row[1] == depth * n**2 + (depth - 1) * n**2 + depth * n
    assert row[2] == depth * n**2 + pairs_of_layers * (n**3 + n**2) + depth * n**2

picture, (left, middle, right) = figure(3, width=4, height=3.8)
needed = np.triu(np.ones((6, 5)))
shades = ListedColormap(["white", "#cfe0fc", "#1f6feb"])
for axis, anew, title in [(left, np.eye(6, 5), "Reverse order"), (middle, needed, "Forward order")]:
    axis.imshow(needed + anew, cmap=shades, vmin=0, vmax=2)
    axis.set(title=f"{title}: {anew.sum():.0f} products", xlabel="product with", ylabel="for the gradient by")
    axis.set(xticks=range(5), xticklabels=[f"W{layer}" for layer in range(2, 7)])
    axis.set(yticks=range(6), yticklabels=[f"W{layer}" for layer in range(1, 7)])
    axis.grid(False)
    axis.text(-0.3, 4.2, "computed", color="#1f6feb", weight="bold")
left.text(-0.3, 4.7, "used again", color="#8fb4f0", weight="bold")
for (name, numbers), style in zip(counts.items(), ["--", "o-", "o-"]):
    right.loglog(depths, numbers, style, label=name)
right.set(title=f"Multiplications, width {width}", xlabel="layers", ylabel="multiplications")
right.set_xticks(depths, depths)
right.minorticks_off()
right.legend()
save(picture, "07_counts.svg")
