use super::line_search::{CURVATURE, DECREASE};
use super::*;
use crate::domain::Values;
use crate::engine::optimizer::OptimizerState;

/// Made by `tests/fixtures/optimizers.py` with PyTorch and SciPy in float64.
#[derive(serde::Deserialize)]
struct Fixture {
    logistic: Logistic,
    lbfgs: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Logistic {
    x: Vec<Vec<f64>>,
    y: Vec<f64>,
    penalty: f64,
}

#[derive(serde::Deserialize)]
struct Case {
    function: String,
    start: Vec<f64>,
    losses: Vec<f64>,
    scipy: f64,
}

fn fixture() -> Fixture {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/optimizers.json"));
    serde_json::from_str(text).unwrap()
}

impl<T: Element> Lbfgs<T> {
    /// Strict tolerances, so that nothing ends early.
    pub(in crate::engine) fn test_settings(history_size: u32) -> Settings {
        Settings {
            learning_rate: 1.0,
            history_size,
            max_evaluations: 25,
            tolerance_gradient: 1e-10,
            tolerance_change: 0.0,
        }
    }

    /// Numbers in all vectors.
    pub(in crate::engine) fn numbers_held(&self) -> usize {
        let work = [&self.start, &self.start_gradients, &self.direction, &self.best_gradients];
        let history = self.history.iter().flat_map(|pair| [&pair.step, &pair.change]);
        work.into_iter().chain(history).map(Vec::len).sum()
    }
}

fn rosenbrock(w: &[f64], g: &mut [f64]) -> f64 {
    let (a, b) = (1.0 - w[0], w[1] - w[0] * w[0]);
    g[0] = -2.0 * a - 400.0 * w[0] * b;
    g[1] = 200.0 * b;
    a * a + 100.0 * b * b
}

fn quadratic(w: &[f64], g: &mut [f64]) -> f64 {
    let excess = w.iter().sum::<f64>() - 1.0;
    let mut loss = excess * excess;
    for (i, (&w, g)) in w.iter().zip(g).enumerate() {
        let (scale, distance) = (10.0_f64.powf(i as f64 / 2.0), w - i as f64);
        *g = scale * distance + 2.0 * excess;
        loss += scale * distance * distance / 2.0;
    }
    loss
}

impl Logistic {
    fn evaluate(&self, w: &[f64], g: &mut [f64]) -> f64 {
        let rows = self.y.len() as f64;
        g.iter_mut().zip(w).for_each(|(g, &w)| *g = self.penalty * w);
        let mut loss = self.penalty / 2.0 * dot(w, w);
        for (x, &y) in self.x.iter().zip(&self.y) {
            let z = dot(x, w);
            loss += (z.max(0.0) - y * z + (-z.abs()).exp().ln_1p()) / rows;
            let error = (1.0 / (1.0 + (-z).exp()) - y) / rows;
            g.iter_mut().zip(x).for_each(|(g, &x)| *g += error * x);
        }
        loss
    }
}

type Function<'a> = Box<dyn FnMut(&[f64], &mut [f64]) -> f64 + 'a>;

fn function<'a>(name: &str, logistic: &'a Logistic) -> Function<'a> {
    match name {
        "rosenbrock" => Box::new(rosenbrock),
        "quadratic" => Box::new(quadratic),
        _ => Box::new(|w, g| logistic.evaluate(w, g)),
    }
}

/// One run, and what is checked of every iteration of every run.
struct Run {
    settings: Settings,
    lbfgs: Lbfgs<f64>,
    w: Vec<f64>,
    g: Vec<f64>,
    loss: f64,
    /// Accepted steps that do not fulfil both conditions.
    exceptions: u32,
}

impl Run {
    fn new(settings: Settings, start: &[f64], function: &mut Function<'_>) -> Self {
        let mut g = vec![0.0; start.len()];
        let loss = function(start, &mut g);
        let lbfgs = Lbfgs::new(&settings, start.len());
        Self { settings, lbfgs, w: start.to_vec(), g, loss, exceptions: 0 }
    }

    fn iterate(&mut self, function: &mut Function<'_>) -> Progress {
        let (before, gradients_before) = (self.w.clone(), self.g.clone());
        let Self { settings, lbfgs, w, g, loss, .. } = self;
        let mut counted = 0;
        let progress = lbfgs.iterate(settings, w, g, *loss, &mut |w, g| {
            counted += 1;
            function(w, g)
        });
        if let Progress::Moved { loss, evaluations } = progress {
            assert_eq!(evaluations, counted);
            assert!(loss < self.loss, "{loss} after {}", self.loss);
            let mut expected = vec![0.0; self.w.len()];
            assert_eq!(function(&self.w, &mut expected), loss);
            assert_eq!(self.g, expected, "the gradients are those at the new parameters");
            let step: Vec<f64> = self.w.iter().zip(&before).map(|(new, old)| new - old).collect();
            let (slope_before, slope) = (dot(&gradients_before, &step), dot(&self.g, &step));
            let is_lower = loss <= self.loss + DECREASE * slope_before * (1.0 - 1e-9);
            assert!(is_lower, "the first condition");
            self.exceptions += u32::from(slope.abs() > -CURVATURE * slope_before * (1.0 + 1e-9));
            self.loss = loss;
        }
        progress
    }

    fn run(&mut self, function: &mut Function<'_>, iterations_max: usize) -> usize {
        (0..iterations_max).find(|_| self.iterate(function) == Progress::Converged).unwrap_or(iterations_max)
    }
}

#[test]
fn every_iteration_is_pytorchs() {
    let Fixture { logistic, lbfgs } = fixture();
    for case in lbfgs {
        let mut function = function(&case.function, &logistic);
        let mut run = Run::new(Lbfgs::<f64>::test_settings(10), &case.start, &mut function);
        for (index, expected) in case.losses.iter().enumerate() {
            run.iterate(&mut function);
            let is_close = (run.loss - expected).abs() <= 1e-6 * expected;
            assert!(is_close, "{}, iteration {}: {} for {expected}", case.function, index + 1, run.loss);
        }
    }
}

#[test]
fn what_is_convex_ends_where_scipy_ends_and_rosenbrock_at_its_minimum() {
    let Fixture { logistic, lbfgs } = fixture();
    for case in lbfgs {
        let mut function = function(&case.function, &logistic);
        // Nearer to the minimum the differences of losses are lost in rounding, and with them the conditions.
        let settings = Settings { tolerance_gradient: 1e-7, ..Lbfgs::<f64>::test_settings(10) };
        let mut run = Run::new(settings, &case.start, &mut function);
        let iterations = run.run(&mut function, 100);
        assert!(iterations < 100, "{} did not converge", case.function);
        assert!((run.loss - case.scipy).abs() <= 1e-12 * case.scipy.abs().max(1.0), "{}: {}", case.function, run.loss);
        assert!(largest(&run.g) < 1e-5, "{}: {:?}", case.function, run.g);
        assert_eq!(run.exceptions, 0, "{}: the second condition", case.function);
    }
}

/// H = Aᵀ·A + 0.1·I of a pseudo-random A; the minimum is at (1, …, 1).
fn random_quadratic(count: usize, seed: u64) -> impl FnMut(&[f64], &mut [f64]) -> f64 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    let a: Vec<Vec<f64>> = (0..count).map(|_| (0..count).map(|_| uniform()).collect()).collect();
    move |w, g| {
        let distance: Vec<f64> = w.iter().map(|w| w - 1.0).collect();
        g.iter_mut().zip(&distance).for_each(|(g, d)| *g = 0.1 * d);
        let mut loss = 0.05 * dot(&distance, &distance);
        for row in &a {
            let product = dot(row, &distance);
            loss += product * product / 2.0;
            add(g, product, row);
        }
        loss
    }
}

#[test]
fn random_quadratics_are_solved_under_both_conditions() {
    for seed in 0..30 {
        let count = 2 + (seed as usize % 17);
        let mut function: Function<'_> = Box::new(random_quadratic(count, seed));
        let settings = Settings { tolerance_gradient: 1e-6, ..Lbfgs::<f64>::test_settings(1 + seed as u32 % 12) };
        let mut run = Run::new(settings, &vec![0.0; count], &mut function);
        let iterations = run.run(&mut function, 500);
        assert!(iterations < 500, "seed {seed}: {}", run.loss);
        assert!(run.w.iter().all(|w| (w - 1.0).abs() < 1e-4), "seed {seed}: {:?}", run.w);
        assert_eq!(run.exceptions, 0, "seed {seed}");
    }
}

#[test]
fn saved_at_any_iteration_it_goes_on_to_the_same_bits() {
    let numbers = Lbfgs::<f64>::test_settings(4);
    let optimizer = crate::domain::Optimizer::Lbfgs(numbers);
    for saved_after in 0..12 {
        let mut g = vec![0.0; 2];
        let mut w = vec![-1.2, 1.0];
        let mut loss = rosenbrock(&w, &mut g);
        let mut state = OptimizerState::new(&optimizer, 2);
        let go = |state: &mut OptimizerState<f64>, w: &mut [f64], g: &mut [f64], loss: &mut f64, iterations| {
            for _ in 0..iterations {
                let lbfgs = state.as_lbfgs_mut().unwrap();
                if let Progress::Moved { loss: new, .. } = lbfgs.iterate(&numbers, w, g, *loss, &mut rosenbrock) {
                    *loss = new;
                }
            }
        };
        go(&mut state, &mut w, &mut g, &mut loss, saved_after);
        let stored = rmp_serde::to_vec_named(&state.save()).unwrap();
        let mut restored = OptimizerState::new(&optimizer, 2);
        restored.restore(rmp_serde::from_slice(&stored).unwrap()).unwrap();
        assert_eq!(restored.save(), state.save());
        let (mut w_again, mut g_again, mut loss_again) = (w.clone(), g.clone(), loss);
        go(&mut state, &mut w, &mut g, &mut loss, 8);
        go(&mut restored, &mut w_again, &mut g_again, &mut loss_again, 8);
        assert_eq!((w, g, loss.to_bits()), (w_again, g_again, loss_again.to_bits()));
        assert_eq!(restored.save(), state.save());
    }
}

#[test]
fn a_shorter_history_goes_on_with_the_newest_steps() {
    let mut function: Function<'_> = Box::new(rosenbrock);
    let mut run = Run::new(Lbfgs::<f64>::test_settings(6), &[-1.2, 1.0], &mut function);
    run.run(&mut function, 10);
    let mut short = Lbfgs::<f64>::new(&Lbfgs::<f64>::test_settings(2), 2);
    short.restore(run.lbfgs.save()).unwrap();
    assert_eq!(short.save().slots, run.lbfgs.save().slots[8..]);
    let (scalars, all) = (short.save().scalars, run.lbfgs.save().scalars);
    assert_eq!(scalars, [all[0], all[5], all[6]]);
}

#[test]
fn a_loss_that_is_not_finite_is_too_high() {
    // ln w has no value at or below 0, where the first step leads.
    let barrier = |w: &[f64], g: &mut [f64]| {
        g[0] = 1.0 - 0.01 / w[0];
        w[0] - 0.01 * w[0].ln()
    };
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut function: Function<'_> = Box::new(move |w, g| {
            let loss = barrier(w, g);
            if w[0] > 0.0 { loss } else { wrong }
        });
        let mut run = Run::new(Lbfgs::<f64>::test_settings(5), &[0.9], &mut function);
        run.run(&mut function, 50);
        assert!((run.w[0] - 0.01).abs() < 1e-6, "{:?}", run.w);
    }
}

#[test]
fn where_nothing_is_lower_the_parameters_stay() {
    let settings = Lbfgs::<f64>::test_settings(5);
    // The gradient lies: the loss rises wherever it leads.
    let mut evaluate = |w: &[f64], g: &mut [f64]| {
        g.copy_from_slice(&[-1.0, 0.5]);
        w.iter().map(|w| w * w).sum()
    };
    let (mut w, mut g) = ([0.0, 0.0], [-1.0, 0.5]);
    let mut lbfgs = Lbfgs::<f64>::new(&settings, 2);
    let progress = lbfgs.iterate(&settings, &mut w, &mut g, 0.0, &mut evaluate);
    assert_eq!(progress, Progress::Converged);
    assert_eq!((w, g), ([0.0, 0.0], [-1.0, 0.5]));
}

#[test]
fn without_a_gradient_nothing_is_evaluated() {
    let settings = Settings { tolerance_gradient: 1e-3, ..Lbfgs::<f32>::test_settings(5) };
    let mut lbfgs = Lbfgs::<f32>::new(&settings, 2);
    let mut evaluate = |_: &[f32], _: &mut [f32]| panic!("nothing to evaluate");
    let progress = lbfgs.iterate(&settings, &mut [1.0, 2.0], &mut [1e-4, -1e-4], 1.0, &mut evaluate);
    assert_eq!(progress, Progress::Converged);
}

#[test]
fn a_change_below_the_tolerance_is_the_last() {
    let settings = Settings { tolerance_change: 1e-2, ..Lbfgs::<f64>::test_settings(5) };
    let mut function: Function<'_> = Box::new(quadratic);
    let mut run = Run::new(settings, &[0.0; 4], &mut function);
    let iterations = run.run(&mut function, 100);
    assert!(iterations < 30);
    let mut g = vec![0.0; 4];
    quadratic(&run.w, &mut g);
    assert_eq!(g, run.g, "the gradients are those at the parameters after the last step");
}

#[test]
fn curvature_that_leads_up_is_forgotten() {
    let settings = Lbfgs::<f64>::test_settings(3);
    let mut lbfgs = Lbfgs::<f64>::new(&settings, 2);
    // Of a γ below 0 the direction is one of ascent.
    let saved = SavedOptimizer {
        slots: vec![Values::F64(vec![1.0, 0.0]), Values::F64(vec![1.0, 0.0])],
        scalars: vec![-1.0, 0.0],
        steps: 1,
    };
    lbfgs.restore(saved).unwrap();
    let (mut w, mut g) = ([3.0, 0.0], [3.0, 0.0]);
    let mut evaluate = |w: &[f64], g: &mut [f64]| {
        g.copy_from_slice(w);
        dot(w, w) / 2.0
    };
    let progress = lbfgs.iterate(&settings, &mut w, &mut g, 4.5, &mut evaluate);
    assert!(matches!(progress, Progress::Moved { loss, .. } if loss < 4.5));
    assert_eq!(lbfgs.used, 1, "only what the new step told");
}

#[test]
fn what_has_no_gradient_does_not_move() {
    let settings = Lbfgs::<f64>::test_settings(3);
    let mut function: Function<'_> = Box::new(|w, g| {
        g[2] = 0.0;
        rosenbrock(&w[..2], &mut g[..2])
    });
    let mut run = Run::new(settings, &[-1.2, 1.0, 0.7], &mut function);
    run.run(&mut function, 60);
    assert_eq!(run.w[2], 0.7);
    assert!((run.w[0] - 1.0).abs() < 1e-6);
}

#[test]
fn an_iteration_allocates_nothing() {
    let settings = Lbfgs::<f32>::test_settings(3);
    let mut lbfgs = Lbfgs::<f32>::new(&settings, 20);
    let mut evaluate = |w: &[f32], g: &mut [f32]| {
        let scale = |i: usize| 1.0 + i as f32;
        w.iter().zip(g.iter_mut()).enumerate().for_each(|(i, (&w, g))| *g = scale(i) * (w - 1.0));
        w.iter().enumerate().map(|(i, w)| (scale(i) * (w - 1.0) * (w - 1.0) / 2.0).to_f64()).sum()
    };
    let (mut w, mut g) = (vec![0.0; 20], vec![0.0; 20]);
    let mut loss = evaluate(&w, &mut g);
    let info = allocation_counter::measure(|| {
        for _ in 0..6 {
            if let Progress::Moved { loss: new, .. } = lbfgs.iterate(&settings, &mut w, &mut g, loss, &mut evaluate) {
                loss = new;
            }
        }
    });
    assert_eq!(info.count_total, 0);
    assert_eq!(lbfgs.used, 3);
}

#[test]
fn in_float32_it_ends_where_rounding_hides_what_is_lower() {
    let settings = Lbfgs::<f32>::test_settings(5);
    let mut lbfgs = Lbfgs::<f32>::new(&settings, 2);
    let mut evaluate = |w: &[f32], g: &mut [f32]| {
        let (a, b) = (1.0 - w[0], w[1] - w[0] * w[0]);
        g.copy_from_slice(&[-2.0 * a - 400.0 * w[0] * b, 200.0 * b]);
        (a * a + 100.0 * b * b).to_f64()
    };
    let (mut w, mut g) = ([-1.2, 1.0], [0.0; 2]);
    let mut loss = evaluate(&w, &mut g);
    let mut iterations = 0;
    while let Progress::Moved { loss: new, .. } = lbfgs.iterate(&settings, &mut w, &mut g, loss, &mut evaluate) {
        assert!(new < loss);
        (loss, iterations) = (new, iterations + 1);
        assert!(iterations < 200);
    }
    assert!(w.iter().all(|w| (w - 1.0).abs() < 1e-3), "{w:?}");
}

#[test]
fn an_endless_descent_ends_with_the_evaluations() {
    let settings = Settings { max_evaluations: 1_000, ..Lbfgs::<f64>::test_settings(5) };
    let mut lbfgs = Lbfgs::<f64>::new(&settings, 1);
    let mut evaluate = |w: &[f64], g: &mut [f64]| {
        g[0] = -1.0;
        -w[0]
    };
    let (mut w, mut g) = ([0.0], [-1.0]);
    let progress = lbfgs.iterate(&settings, &mut w, &mut g, 0.0, &mut evaluate);
    assert!(matches!(progress, Progress::Moved { evaluations, .. } if evaluations <= 1_000), "{progress:?}");
    assert!(w[0].is_finite() && w[0] > 1e300);
}

#[test]
fn sums_are_in_float64_whatever_the_length() {
    for count in [0, 1, 7, 8, 9, 31] {
        let a: Vec<f32> = (0..count).map(|i| 1.0 + i as f32).collect();
        let expected: f64 = a.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
        assert_eq!(dot(&a, &a), expected);
    }
    assert_eq!(dot(&[1e30_f32; 3], &[1e30; 3]), 3.0 * f64::from(1e30_f32) * f64::from(1e30_f32));
}
