"""Lesson 3: XOR and other functions by hand-set perceptrons. The page is docs/course/03_by_hand.md."""

import grpc
import numpy as np

from course import create, features, figure, get_weights, gradients, predict, save, set_weights, train

corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
a, b = corners.T
XOR = (a != b).astype(int)
XNOR = 1 - XOR

formula = a * (1 - b) + (1 - a) * b
often_printed = a * b + (1 - a) * (1 - b)
print("a b | a·b̄ + ā·b | a·b + ā·b̄")
for row in zip(a, b, formula, often_printed):
    print("{} {} |     {}     |     {}".format(*row))
assert (formula == XOR).all()
assert (often_printed == XNOR).all()


def two_layers(inputs, hidden):
    """A network of step units: hidden ones, and one that reads them."""
    step = "ACTIVATION_STEP"
    return create(inputs, [{"units": hidden, "activation": step}, {"units": 1, "activation": step}], seed=1)


W1, b1 = np.array([[1, -1], [-1, 1]]), np.array([-0.5, -0.5])
W2, b2 = np.array([[1], [1]]), np.array([-0.5])
xor = two_layers(2, 2)
print("version", set_weights(xor, [(W1, b1), (W2, b2)]))
assert (get_weights(xor)[0][0] == W1).all()


def truth_table(model):
    """What both layers say of each corner."""
    hidden, outputs = features(model, corners, layer=0), predict(model, corners).ravel()
    print("a b | h1 h2 | y")
    for row in zip(a, b, *hidden.T, outputs):
        print("{} {} |  {:.0f}  {:.0f} | {:.0f}".format(*row))
    return hidden, outputs


hidden, outputs = truth_table(xor)
assert (hidden == np.column_stack([a * (1 - b), (1 - a) * b])).all()
assert (outputs == XOR).all()

learner = two_layers(2, 2)
set_weights(learner, [(W1, b1), (np.zeros((2, 1)), [0])])
print(train(learner, corners, XOR, frozen_layers=[0], shuffle=False).reason)
(W, _), (w, bias) = get_weights(learner)
print(f"{w[0, 0]:+.0f}·h1 {w[1, 0]:+.0f}·h2 {bias[0]:+.0f} > 0:", predict(learner, corners).ravel())
assert (predict(learner, corners).ravel() == XOR).all() and (W == W1).all()
assert (w == 2 * W2).all() and (bias == 2 * b2).all()

figure_of_spaces, (left, right) = figure(2, width=4.4, height=4.3)
ends = np.array([-0.5, 1.5])
left.fill_between(ends, ends - 0.5, -0.5, color="#1f6feb", alpha=0.15)
left.fill_between(ends, ends + 0.5, 1.5, color="#7b5ea7", alpha=0.15)
left.plot(ends, ends - 0.5, color="#1f6feb")
left.plot(ends, ends + 0.5, color="#7b5ea7")
left.text(0.95, -0.3, "h₁ = 1\na − b > ½", ha="center", color="#1f6feb")
left.text(0.05, 1.2, "h₂ = 1\nb − a > ½", ha="center", color="#7b5ea7")
left.set(title="The inputs: two lines", xlabel="a", ylabel="b")
right.fill_between(ends, 0.5 - ends, 1.5, color="#2a9d8f", alpha=0.15)
right.plot(ends, 0.5 - ends, color="#2a9d8f")
right.text(0.75, 0.75, "y = 1\nh₁ + h₂ > ½", ha="center", color="#1c6e64")
right.annotate("(0, 0) and (1, 1)", (0, 0), (0, -0.25), ha="center")
right.annotate("(1, 0)", (1, 0), (1, -0.25), ha="center")
right.annotate("(0, 1)", (0, 1), (-0.2, 1.1), ha="center")
right.set(title="The hidden units: one line", xlabel="h₁", ylabel="h₂")
for axis, points in [(left, corners), (right, hidden)]:
    for side, color, marker in [(1, "#2a9d8f", "o"), (0, "#d1495b", "s")]:
        axis.scatter(*points[XOR == side].T, s=90, c=color, marker=marker, zorder=3, label=f"XOR is {side}")
    axis.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), xticks=[0, 1], yticks=[0, 1], aspect="equal")
figure_of_spaces.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
save(figure_of_spaces, "03_spaces.svg")

xnor = two_layers(2, 2)
set_weights(xnor, [(np.array([[1, -1], [1, -1]]), np.array([-1.5, 0.5])), (W2, b2)])
hidden, outputs = truth_table(xnor)
assert (hidden == np.column_stack([a * b, (1 - a) * (1 - b)])).all()
assert (outputs == XNOR).all()


def or_of_ands(rows, outputs):
    """A hidden unit for each row that is true, and their OR."""
    true = rows[outputs == 1]
    model = two_layers(rows.shape[1], len(true))
    set_weights(model, [(2 * true.T - 1, 0.5 - true.sum(axis=1)), (np.ones((len(true), 1)), [-0.5])])
    return model


rows = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
parity = rows.sum(axis=1) % 2
model = or_of_ands(rows, parity)
(W, bias), _ = get_weights(model)
for unit in range(4):
    print("unit {}: {:+.0f}·a {:+.0f}·b {:+.0f}·c {:+.1f}".format(unit + 1, *W[:, unit], bias[unit]))

hidden, outputs = features(model, rows, layer=0), predict(model, rows).ravel()
print("a b c | h1 h2 h3 h4 | y")
for row in zip(*rows.T, *hidden.T, outputs):
    print("{} {} {} |  {:.0f}  {:.0f}  {:.0f}  {:.0f} | {:.0f}".format(*row))
assert (outputs == parity).all()
assert (hidden.sum(axis=1) == parity).all() and (hidden.sum(axis=0) == 1).all()

right = 0
for number in range(1, 256):
    outputs = np.array([number >> row & 1 for row in range(8)])
    right += (predict(or_of_ands(rows, outputs), rows).ravel() == outputs).all()
print(right, "functions of three bits")
assert right == 255

try:
    train(xor, corners, XOR)
    refusal = None
except grpc.RpcError as error:
    refusal = error
print(refusal.code().name)
print(refusal.details().replace(xor, "…"))
assert refusal.code() == grpc.StatusCode.FAILED_PRECONDITION
assert "layers[0].activation is step, which is flat" in refusal.details()

layers = [{"units": 2, "activation": "ACTIVATION_SIGMOID"}, {"units": 1, "activation": "ACTIVATION_SIGMOID"}]
smooth = create(2, layers, seed=1)
weights = np.linspace(-1, 3, 161)
step_error, sigmoid_error, sigmoid_slope = [], [], []
for weight in weights:
    moved = W1 + [[weight - 1, 0], [0, 0]]
    set_weights(xor, [(moved, b1), (W2, b2)])
    set_weights(smooth, [(6 * moved, 6 * b1), (6 * W2, 6 * b2)])
    step_error.append(np.mean((predict(xor, corners).ravel() - XOR) ** 2))
    answer = gradients(smooth, corners, XOR, loss={"squared_error": {}})
    sigmoid_error.append(answer.loss)
    sigmoid_slope.append(6 * answer.layers[0].weights[0, 0])
print("errors of the step network:", *np.unique(step_error))
print(f"slope for the sigmoid network at 0.3: {sigmoid_slope[52]:.3f}, at 1.7: {sigmoid_slope[108]:+.3f}")
assert set(step_error) == {0, 0.25} and np.count_nonzero(np.diff(step_error)) == 2
sigmoid_slope = np.array(sigmoid_slope)
assert (sigmoid_slope[weights < 0.9] < 0).all() and (sigmoid_slope[weights > 1.1] > 0).all()
assert np.allclose(np.gradient(sigmoid_error, weights)[1:-1], sigmoid_slope[1:-1], rtol=0, atol=0.01)

figure_of_errors, axis = figure(width=6)
axis.step(weights, step_error, where="mid", color="#d1495b", label="step units")
axis.plot(weights, sigmoid_error, color="#1f6feb", label="sigmoid units, weights times 6")
axis.set(title="XOR by hand, one weight moved", xlabel="weight from a to h₁", ylabel="mean squared error")
figure_of_errors.legend(loc="outside lower center", ncols=2)
save(figure_of_errors, "03_flat.svg")
