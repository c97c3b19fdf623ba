use super::*;
use crate::domain::{Activation, ElementType, Loss, Reduction};
use crate::engine::network::Plan;
use crate::engine::testing::{network, packed_at};

/// Rows of so many numbers each, and a workspace for all of them.
fn loaded(values: Values, width: usize) -> (RowSet<f32>, Workspace<f32>) {
    let rows = values.len() / width;
    let inputs = Matrix::from_values(rows, width, values);
    let targets = Targets::Classes((0..rows as u32).map(|row| row % 2).collect());
    let set = RowSet::new(Rows { inputs, targets, weights: None, mask: None }, 2);
    let architecture = network(ElementType::Float32, width, &[(2, Activation::Softmax)]);
    let loss = Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 };
    let objective = Objective::new(&architecture, &loss, Reduction::Mean);
    (set, Workspace::new(&Plan::new(&architecture), &objective, rows))
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|number| number as f32).collect()
}

#[test]
fn rows_in_order_are_read_where_they_lie_and_others_are_copied() {
    const WIDTH: usize = 3;
    let all = numbers(6 * WIDTH);
    let own = Values::F32(all.clone());
    for (values, lies) in [(own.clone(), true), (packed_at(&own, 0), true), (packed_at(&own, 1), false)] {
        let (set, mut workspace) = loaded(values, WIDTH);
        for order in [vec![1, 2, 3], vec![1, 2, 4], vec![3, 2, 1], vec![2, 2, 2], vec![5], vec![1, 3]] {
            // Those after the batch need not be in order.
            let rows = order.iter().copied().chain([0, 4]);
            workspace.activations.inputs.fill(-1.0);
            let tile = set.load(order.len(), rows, &mut workspace);
            let is_run = order.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            assert_eq!(tile.inputs.is_some(), lies && is_run, "{order:?}");
            let expected: Vec<f32> = order.iter().flat_map(|&row| &all[row * WIDTH..][..WIDTH]).copied().collect();
            let found = tile.inputs.unwrap_or(&workspace.activations.inputs);
            assert_eq!(&found[..expected.len()], expected, "{order:?}");
            assert!(workspace.classes.iter().eq(order.iter().map(|&row| row as u32 % 2).collect::<Vec<_>>().iter()));
        }
    }
}

#[test]
fn float64_where_float32_could_lie_is_copied() {
    let numbers: Vec<f64> = (0..12).map(f64::from).collect();
    let lie = [0, 4].map(|offset| {
        let inputs = Inputs::<f64>::new(packed_at(&Values::F64(numbers.clone()), offset));
        let targets = TargetData::Classes(vec![0; 4]);
        let (set, _) = loaded(Values::F32(vec![0.0; 12]), 3);
        let RowSet { rows, spread, input_width, units, .. } = set;
        let set = RowSet {
            rows,
            inputs,
            targets,
            spread,
            weights: None,
            mask: None,
            counts: None,
            sent: None,
            input_width,
            units,
        };
        let found = set.inputs_in_place(2, 1..4);
        assert!(found.is_none_or(|found| found == &numbers[3..9]));
        found.is_some()
    });
    assert_eq!(lie, [true, false]);
}

#[test]
fn a_large_batch_is_copied() {
    let width = IN_PLACE_MAX / size_of::<f32>() / 2;
    let (set, mut workspace) = loaded(Values::F32(numbers(3 * width)), width);
    assert!(set.load(2, 0..3, &mut workspace).inputs.is_some());
    assert!(set.load(3, 0..3, &mut workspace).inputs.is_none());
    assert_eq!(workspace.activations.inputs[..], numbers(3 * width));
}
