//! A table as a network wants it: numbers, classes by index, and a held-out part that is never trained on.

use anyhow::bail;

use super::TaskChoice;
use crate::cli::csv_table::Table;
use crate::engine::split;

/// What is to be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A number.
    Regression,
    /// One of these classes.
    Classification(Vec<String>),
}

/// Rows for training, and rows to score by.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What is to be learned.
    pub task: Task,
    /// Name of the column that is predicted.
    pub target: String,
    /// Names of the input columns.
    pub inputs: Vec<String>,
    /// Rows to learn from.
    pub training: Rows,
    /// Rows held out; empty where none were asked for.
    pub test: Rows,
}

/// Which columns are not learned from, and why.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// What is to be predicted.
    pub target: &'a str,
    /// How much each row counts.
    pub weights: Option<&'a str>,
}

/// Inputs row after row, and a target a row: a number, or the index of a class.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Input values.
    pub inputs: Vec<f64>,
    /// Targets.
    pub targets: Vec<f64>,
    /// How much each row counts; empty where all count alike.
    pub weights: Vec<f64>,
}

impl Dataset {
    /// Splits a table; `test` is the share that is held out, drawn by the seed, in proportion for classes.
    pub fn new(table: &Table, names: Columns<'_>, task: TaskChoice, test: f64, seed: u64) -> anyhow::Result<Self> {
        if !(0.0..1.0).contains(&test) {
            bail!("--test must be at least 0 and below 1, but is {test}");
        }
        let target = table.column(names.target)?;
        let weights = names.weights.map(|name| table.column(name)).transpose()?;
        if weights == Some(target) {
            bail!("--sample-weights and --target are the same column, {:?}", names.target);
        }
        let (task, targets) = read_targets(table, target, task)?;
        let is_input = |column: &usize| *column != target && Some(*column) != weights;
        let columns: Vec<usize> = (0..table.columns.len()).filter(is_input).collect();
        if columns.is_empty() {
            bail!("{} has no column beside the target to learn from", table.name);
        }
        let strata: Option<Vec<u32>> = match task {
            Task::Regression => None,
            Task::Classification(_) => Some(targets.iter().map(|&class| class as u32).collect()),
        };
        let held_out = (table.len() as f64 * test).round() as usize;
        if table.len() < 3 || held_out + 2 > table.len() {
            bail!(
                "{} has too few rows ({}) to learn from, to validate, and to hold out what --test says",
                table.name,
                table.len()
            );
        }
        let (training, test) = split::split(table.len(), held_out, strata.as_deref(), seed, split::Purpose::Test);
        let rows = |indices: &[u32]| -> anyhow::Result<Rows> {
            let mut rows = Rows::default();
            for &row in indices {
                for &column in &columns {
                    rows.inputs.push(table.required_number(row as usize, column)?);
                }
                rows.targets.push(targets[row as usize]);
                if let Some(column) = weights {
                    rows.weights.push(table.required_number(row as usize, column)?);
                }
            }
            Ok(rows)
        };
        let inputs = columns.iter().map(|&column| table.columns[column].clone()).collect();
        let target = names.target.to_owned();
        Ok(Self { task, target, inputs, training: rows(&training)?, test: rows(&test)? })
    }
}

fn read_targets(table: &Table, column: usize, choice: TaskChoice) -> anyhow::Result<(Task, Vec<f64>)> {
    let rows = 0..table.len();
    let is_classification = match choice {
        TaskChoice::Classification => true,
        TaskChoice::Regression => false,
        TaskChoice::Auto => rows.clone().any(|row| table.number(row, column).is_none()),
    };
    if !is_classification {
        let targets = rows.map(|row| table.required_number(row, column)).collect::<anyhow::Result<_>>()?;
        return Ok((Task::Regression, targets));
    }
    let is_number = |row: &usize| table.number(*row, column).is_some();
    let numbers = rows.clone().filter(is_number).count();
    if choice == TaskChoice::Auto
        && numbers * 2 > rows.len()
        && let Some(row) = rows.clone().find(|row| !is_number(row))
    {
        let (line, text, name) = (table.line(row), table.text(row, column), &table.columns[column]);
        bail!(
            "column {name:?} has numbers in {numbers} of {} rows, but {text:?} in line {line}; correct it, or say what is \
             meant with --task classification",
            rows.len()
        );
    }
    let mut classes: Vec<&str> = rows.clone().map(|row| table.text(row, column)).collect();
    classes.sort_unstable();
    classes.dedup();
    let name = &table.columns[column];
    match classes.as_slice() {
        [only] => bail!("every row of column {name:?} is {only:?}: there is nothing to tell apart"),
        ["", ..] => bail!("column {name:?} has empty cells; give each row a class"),
        _ => {}
    }
    // Numbers that spell classes stand in their own order: 2 before 10.
    if classes.iter().all(|class| class.parse::<f64>().is_ok_and(f64::is_finite)) {
        let number = |class: &str| class.parse::<f64>().unwrap_or(0.0);
        classes.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }
    let index = |row| classes.iter().position(|class| *class == table.text(row, column)).unwrap_or(0) as f64;
    let targets = rows.map(index).collect();
    Ok((Task::Classification(classes.into_iter().map(str::to_owned).collect()), targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(text: &str, task: TaskChoice) -> anyhow::Result<Dataset> {
        let table = Table::parse(text.as_bytes(), "t.csv".into())?;
        Dataset::new(&table, Columns { target: "y", weights: None }, task, 0.25, 1)
    }

    #[test]
    fn text_is_classified_and_numbers_are_regressed_unless_told_otherwise() {
        let text = "x,y\n1,b\n2,a\n3,b\n4,a\n";
        let classes = Task::Classification(vec!["a".into(), "b".into()]);
        assert_eq!(dataset(text, TaskChoice::Auto).unwrap().task, classes);
        let numbers = "y,x\n10,1\n2,2\n10,3\n2,4\n";
        assert_eq!(dataset(numbers, TaskChoice::Auto).unwrap().task, Task::Regression);
        let classes = Task::Classification(vec!["2".into(), "10".into()]);
        assert_eq!(dataset(numbers, TaskChoice::Classification).unwrap().task, classes);
        assert!(dataset(text, TaskChoice::Regression).unwrap_err().to_string().contains("line 2, column \"y\""));
    }

    #[test]
    fn rows_held_out_are_not_trained_on() {
        let data = dataset("x,y\n1,1\n2,2\n3,3\n4,4\n", TaskChoice::Auto).unwrap();
        assert_eq!((data.training.targets.len(), data.test.targets.len()), (3, 1));
        let mut all = [data.training.inputs, data.test.inputs].concat();
        all.sort_by(f64::total_cmp);
        assert_eq!(all, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_column_of_weights_is_not_learned_from() {
        let table = Table::parse("w,x,y\n1,10,0\n2,20,0\n3,30,0\n".as_bytes(), "t.csv".into()).unwrap();
        let columns = Columns { target: "y", weights: Some("w") };
        let data = Dataset::new(&table, columns, TaskChoice::Auto, 0.0, 1).unwrap();
        assert_eq!(data.inputs, ["x"]);
        let tenfold: Vec<f64> = data.training.weights.iter().map(|weight| weight * 10.0).collect();
        assert_eq!(tenfold, data.training.inputs);
    }

    #[test]
    fn one_class_only_is_refused() {
        let error = dataset("x,y\n1,a\n2,a\n3,a\n", TaskChoice::Auto).unwrap_err().to_string();
        assert!(error.contains("nothing to tell apart"), "{error}");
    }
}
