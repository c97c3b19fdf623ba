//! What a training and a prediction cost in the engine alone: `cargo bench --bench engine`.

use divan::Bencher;
use divan::counter::ItemsCount;
use epochd::domain::training::RawValidation;
use epochd::domain::{
    Activation, Architecture, At, ElementType, Faults, Matrix, Preprocessing, RawArchitecture, RawLayer, RawMatrix,
    RawTraining, Reduction, Start, Values,
};
use epochd::engine::{AnyNetwork, AnyTrainer, TrainerInput, draw_parameters};

fn main() {
    divan::main();
}

/// Input width, hidden units, classes, rows of a batch.
const SHAPES: [(usize, usize, usize, usize); 4] =
    [(4, 64, 3, 16), (64, 64, 10, 32), (784, 128, 10, 64), (784, 512, 10, 256)];

fn architecture(element_type: ElementType, (width, hidden, classes, _): (usize, usize, usize, usize)) -> Architecture {
    let layer = |units: usize, activation| {
        Some(RawLayer { units: units as i64, activation, activation_alpha: None, bias: true })
    };
    let layers = vec![layer(hidden, Activation::Relu), layer(classes, Activation::Softmax)];
    let raw = RawArchitecture { input_width: width as i64, element_type, layers };
    raw.check(At::ROOT, &mut Faults::new()).expect("the shape is sound")
}

fn rows(count: usize, width: usize) -> Values {
    Values::F32((0..count * width).map(|index| (index as f32 * 0.618_034).fract()).collect())
}

fn trainer(element_type: ElementType, shape: (usize, usize, usize, usize)) -> AnyTrainer {
    let (width, _, classes, batch) = shape;
    let architecture = architecture(element_type, shape);
    let count = batch * 8;
    let matrix = |values| RawMatrix { values, rows: None, columns: None };
    let targets = (0..count).map(|row| (row % classes) as f64).collect();
    let training = RawTraining {
        inputs: matrix(rows(count, width)),
        targets: matrix(Values::F64(targets)),
        validation: RawValidation::None,
        loss: None,
        reduction: Reduction::Mean,
        optimizer: None,
        epochs: Some(1_000_000),
        batch_size: Some(batch as i64),
        shuffle: None,
        seed: Some(1),
        early_stopping: None,
        report_every: None,
        start: Start::Latest,
        cancel_on_disconnect: false,
    };
    let (settings, data) = training.check(&architecture, 1).expect("the training is sound");
    let parameters = draw_parameters(&architecture, 1);
    let preprocessing = Preprocessing::default();
    AnyTrainer::new(TrainerInput { architecture, settings, data, preprocessing, fitted: None, parameters })
}

/// One batch forward, backward and into the weights (Adam).
#[divan::bench(args = SHAPES)]
fn step_float32(bencher: Bencher, shape: (usize, usize, usize, usize)) {
    let mut trainer = trainer(ElementType::Float32, shape);
    bencher.counter(ItemsCount::new(shape.3)).bench_local(|| trainer.step_batch());
}

/// The same in float64.
#[divan::bench(args = SHAPES)]
fn step_float64(bencher: Bencher, shape: (usize, usize, usize, usize)) {
    let mut trainer = trainer(ElementType::Float64, shape);
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
