//! What a training and a prediction cost in the engine alone: `cargo bench --bench engine`.

use divan::Bencher;
use divan::counter::ItemsCount;
use epochd::domain::{
    Activation, Architecture, At, ElementType, Expression, Faults, Loss, Matrix, Preprocessing, RawArchitecture,
    RawLayer, RawMatrix, RawTraining, Values,
};
use epochd::engine::{AnyNetwork, AnyTrainer, TrainerInput, draw_parameters};

fn main() {
    divan::main();
}

/// Input width, hidden units, classes, rows of a batch.
const SHAPES: [(usize, usize, usize, usize); 4] =
    [(4, 64, 3, 16), (64, 64, 10, 32), (784, 128, 10, 64), (784, 512, 10, 256)];

fn architecture(element_type: ElementType, (width, hidden, classes, _): (usize, usize, usize, usize)) -> Architecture {
    let layer = |units: usize, activation| Some(RawLayer { units: units as i64, activation, ..RawLayer::default() });
    let layers = vec![layer(hidden, Activation::Relu), layer(classes, Activation::Softmax)];
    let raw = RawArchitecture { input_width: width as i64, element_type, layers, input_dropout: None };
    raw.check(At::ROOT, &mut Faults::new()).expect("the shape is sound")
}

fn rows(count: usize, width: usize) -> Values {
    Values::F32((0..count * width).map(|index| (index as f32 * 0.618_034).fract()).collect())
}

fn trainer(element_type: ElementType, shape: (usize, usize, usize, usize), loss: Option<Loss>) -> AnyTrainer {
    let (width, _, classes, batch) = shape;
    let architecture = architecture(element_type, shape);
    let count = batch * 8;
    let matrix = |values| RawMatrix { values, rows: None, columns: None };
    let targets = (0..count).map(|row| (row % classes) as f64).collect();
    let training = RawTraining {
        loss,
        epochs: Some(1_000_000),
        batch_size: Some(batch as i64),
        seed: Some(1),
        ..RawTraining::new(matrix(rows(count, width)), matrix(Values::F64(targets)))
    };
    let (settings, data) = training.check(&architecture, 1).expect("the training is sound");
    let parameters = draw_parameters(&architecture, 1);
    let preprocessing = Preprocessing::default();
    AnyTrainer::new(TrainerInput { architecture, settings, data, preprocessing, fitted: None, parameters })
}

/// One batch forward, backward and into the weights (Adam).
#[divan::bench(args = SHAPES)]
fn step_float32(bencher: Bencher, shape: (usize, usize, usize, usize)) {
    let mut trainer = trainer(ElementType::Float32, shape, None);
    bencher.counter(ItemsCount::new(shape.3)).bench_local(|| trainer.step_batch());
}

/// The same in float64.
#[divan::bench(args = SHAPES)]
fn step_float64(bencher: Bencher, shape: (usize, usize, usize, usize)) {
    let mut trainer = trainer(ElementType::Float64, shape, None);
    bencher.counter(ItemsCount::new(shape.3)).bench_local(|| trainer.step_batch());
}

/// A batch with the squared error, built in and as a caller writes it: the second may take twice as long.
#[divan::bench(args = ["built in", "(y_pred-y_true)^2", "abs(y_pred-y_true)^1.5", "-sum(y_true*log(y_pred))"])]
fn step_with_expression(bencher: Bencher, text: &str) {
    let loss = match text {
        "built in" => Loss::SquaredError,
        text => Loss::Custom { expression: Expression::parse(text).expect("the expression is sound") },
    };
    let shape = SHAPES[1];
    let mut trainer = trainer(ElementType::Float32, shape, Some(loss));
    bencher.counter(ItemsCount::new(shape.3)).bench_local(|| trainer.step_batch());
}

/// A batch of rows predicted.
#[divan::bench(args = SHAPES)]
fn predict_float32(bencher: Bencher, shape: (usize, usize, usize, usize)) {
    let architecture = architecture(ElementType::Float32, shape);
    let network = AnyNetwork::new(&architecture, draw_parameters(&architecture, 1));
    let inputs = Matrix::from_values(shape.3, shape.0, rows(shape.3, shape.0));
    bencher.counter(ItemsCount::new(shape.3)).bench_local(|| network.predict(&inputs, None));
}
