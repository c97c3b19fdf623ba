//! What is printed after a training: how it ended, how well the model does on rows it has not seen, and how to ask it.

use std::fmt::Write as _;
use std::path::Path;

use super::dataset::{Dataset, Task};
use super::session::Trained;
use super::words::word_of;
use crate::cli::output::table;
use crate::config::{DATA_DIR_DEFAULT, LISTEN_DEFAULT};
use crate::rpc::{json, pb};

/// How well a model does on held-out rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// Of a classifier.
    Classification {
        /// Share of rows classified rightly.
        accuracy: f64,
        /// A line each class.
        classes: Vec<ClassScore>,
    },
    /// Of a regressor.
    Regression {
        /// 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; `None` where the targets do not vary.
        r2: Option<f64>,
        /// Mean of |y − ŷ|.
        mean_absolute_error: f64,
    },
}

/// How well one class is told from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassScore {
    /// Its name.
    pub name: String,
    /// Rows that are of it.
    pub rows: usize,
    /// Share of the rows said to be of it that are; `None` where none were.
    pub precision: Option<f64>,
    /// Share of its rows that were said to be; `None` where there are none.
    pub recall: Option<f64>,
}

impl Score {
    /// Compares what was said with the truth; for classes, both are indices.
    pub fn new(task: &Task, truth: &[f64], said: &[f64]) -> Self {
        match task {
            Task::Regression => regression(truth, said),
            Task::Classification(names) => classification(names, truth, said),
        }
    }
}

fn regression(truth: &[f64], said: &[f64]) -> Score {
    let rows = truth.len() as f64;
    let mean = truth.iter().sum::<f64>() / rows;
    let total: f64 = truth.iter().map(|y| (y - mean).powi(2)).sum();
    let residual: f64 = truth.iter().zip(said).map(|(y, said)| (y - said).powi(2)).sum();
    let mean_absolute_error = truth.iter().zip(said).map(|(y, said)| (y - said).abs()).sum::<f64>() / rows;
    let r2 = (total > 0.0).then(|| 1.0 - residual / total);
    Score::Regression { r2, mean_absolute_error }
}

fn classification(names: &[String], truth: &[f64], said: &[f64]) -> Score {
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let pairs = || truth.iter().zip(said).map(|(&truth, &said)| (truth as usize, said as usize));
    let class = |(class, name): (usize, &String)| {
        let rows = pairs().filter(|&(truth, _)| truth == class).count();
        let claimed = pairs().filter(|&(_, said)| said == class).count();
        let hits = pairs().filter(|&(truth, said)| truth == class && said == class).count();
        ClassScore { name: name.clone(), rows, precision: share(hits, claimed), recall: share(hits, rows) }
    };
    let right = pairs().filter(|(truth, said)| truth == said).count();
    let classes = names.iter().enumerate().map(class).collect();
    Score::Classification { accuracy: share(right, truth.len()).unwrap_or(0.0), classes }
}

/// Everything that is told after a training.
pub(super) fn text(trained: &Trained, dataset: &Dataset, server: Option<&str>, data_dir: &Path) -> String {
    let mut text = ending(trained);
    let held_out = dataset.test.targets.len();
    match &trained.score {
        None => {}
        Some(Score::Classification { accuracy, classes }) => {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\nHeld-out accuracy: {accuracy:.3} ({held_out} rows it has not seen)\n");
            text.push_str(&class_table(classes));
        }
        Some(Score::Regression { r2, mean_absolute_error }) => {
            let r2 = r2.map_or("none, since the targets do not vary".to_owned(), |r2| format!("{r2:.3}"));
            let _ = writeln!(text, "\nHeld-out R²: {r2} ({held_out} rows it has not seen)");
            let _ = writeln!(text, "Held-out mean absolute error: {mean_absolute_error:.4}");
        }
    }
    text.push_str(&metrics_table(trained));
    text.push_str(&layers_table(trained));
    text.push_str(&how_to_ask(trained, dataset, server, data_dir));
    text
}

fn ending(trained: &Trained) -> String {
    let finished = &trained.finished;
    let epoch = |report: &Option<pb::EpochReport>| report.as_ref().map_or(0, |report| report.epoch);
    let last = epoch(&finished.last_report);
    let kept = trained.kept_report().map_or(0, |report| report.epoch);
    let how = match finished.stop_reason() {
        pb::StopReason::EarlyStopped => format!("stopped early after epoch {last}"),
        pb::StopReason::Cancelled => format!("stopped by you after epoch {last}"),
        pb::StopReason::Converged => format!("converged at epoch {last}"),
        pb::StopReason::TargetReached => format!("reached what it was to reach at epoch {last}"),
        pb::StopReason::MaxDuration => format!("ended when its time was over, after epoch {last}"),
        _ => format!("ended after all of its {last} epochs"),
    };
    match finished.version {
        0 => format!("Training {how}; nothing was kept but the model's initial weights.\n"),
        version => format!("Training {how}; version {version} keeps the weights of epoch {kept}.\n"),
    }
}

fn class_table(classes: &[ClassScore]) -> String {
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.3}"));
    let rows = classes
        .iter()
        .map(|class| vec![class.name.clone(), class.rows.to_string(), share(class.precision), share(class.recall)]);
    table(&["class", "rows", "precision", "recall"], &[1, 2, 3], rows) + "\n"
}

/// The metrics that were asked for, of the epoch whose weights are kept; nothing where none were.
fn metrics_table(trained: &Trained) -> String {
    let Some(report) = trained.kept_report().filter(|_| !trained.asked.metrics.is_empty()) else {
        return String::new();
    };
    let cell = |metrics: &Option<pb::Metrics>, name: &str| {
        let value = metrics.as_ref().and_then(|metrics| json::number(metrics, name));
        value.map_or(
            "-".to_owned(),
            |value| if value.fract() == 0.0 { value.to_string() } else { format!("{value:.4}") },
        )
    };
    let rows = trained.asked.metrics.iter().map(|&metric| {
        let name = word_of::<pb::Metric>(metric);
        let (training, validation) = (cell(&report.metrics, &name), cell(&report.validation_metrics, &name));
        vec![name, training, validation]
    });
    let epoch = format!("epoch {}", report.epoch);
    format!("\n{}\n", table(&[&epoch, "training", "validation"], &[1, 2], rows))
}

/// What the layers went through in that epoch, where that was asked for.
fn layers_table(trained: &Trained) -> String {
    let Some(report) = trained.kept_report().filter(|_| trained.asked.diagnostics) else { return String::new() };
    let rows = report.diagnostics.iter().enumerate().map(|(layer, it)| {
        let numbers = [it.gradient_norm, it.weight_norm, it.update_ratio].map(|number| format!("{number:.3e}"));
        [vec![layer.to_string()], numbers.to_vec(), vec![format!("{:.3}", it.dead_units)]].concat()
    });
    let header = ["layer", "gradient norm", "weight norm", "update ratio", "dead units"];
    format!("\n{}\n", table(&header, &[0, 1, 2, 3, 4], rows))
}

/// The same for machines, in one line.
pub(super) fn json(trained: &Trained, dataset: &Dataset) -> anyhow::Result<String> {
    let finished = &trained.finished;
    let epoch = |report: &Option<pb::EpochReport>| report.as_ref().map(|report| report.epoch);
    let mut told = serde_json::json!({
        "modelId": trained.model_id,
        "version": finished.version,
        "stopReason": finished.stop_reason().as_str_name(),
        "lastEpoch": epoch(&finished.last_report),
        "bestEpoch": epoch(&finished.best_report),
        "heldOutRows": dataset.test.targets.len(),
    });
    match &trained.score {
        None => {}
        Some(Score::Classification { accuracy, classes }) => {
            told["accuracy"] = (*accuracy).into();
            let class = |class: &ClassScore| {
                let ClassScore { name, rows, precision, recall } = class;
                serde_json::json!({ "class": name, "rows": rows, "precision": precision, "recall": recall })
            };
            told["classes"] = classes.iter().map(class).collect();
        }
        Some(Score::Regression { r2, mean_absolute_error }) => {
            told["r2"] = (*r2).into();
            told["meanAbsoluteError"] = (*mean_absolute_error).into();
        }
    }
    if let Some(report) =
        trained.kept_report().filter(|_| trained.asked.diagnostics || !trained.asked.metrics.is_empty())
    {
        told["report"] = serde_json::from_str(&json::line(report)?)?;
    }
    Ok(told.to_string())
}

/// Two lines that work when they are pasted: a server, and a prediction for a row of the data.
fn how_to_ask(trained: &Trained, dataset: &Dataset, server: Option<&str>, data_dir: &Path) -> String {
    let rows = if dataset.test.inputs.is_empty() { &dataset.training } else { &dataset.test };
    let row: Vec<String> = rows.inputs[..dataset.inputs.len()].iter().map(|value| value.to_string()).collect();
    let model_id = &trained.model_id;
    let json = format!("{{\"model_id\": \"{model_id}\", \"inputs\": {{\"values\": [{}]}}}}", row.join(", "));
    let address = server.map_or(LISTEN_DEFAULT, |url| url.trim_start_matches("http://").trim_end_matches('/'));
    let place = match server {
        Some(url) => format!("on {url}"),
        None => format!("in {}", data_dir.display()),
    };
    let mut text = format!("\nThe model is {model_id:?} {place}. To ask it for a prediction:\n\n");
    if server.is_none() {
        let program = std::env::args().next().unwrap_or_else(|| "epochd".to_owned());
        let folder = if data_dir == Path::new(DATA_DIR_DEFAULT) {
            String::new()
        } else {
            format!(" --data-dir {}", shell_quoted(&data_dir.display().to_string()))
        };
        let _ = writeln!(text, "  {} serve{folder}", shell_quoted(&program));
    }
    let _ = writeln!(text, "  grpcurl -plaintext -d '{json}' {address} epochd.v1.ModelService/Predict");
    text
}

/// A word that a shell reads as it is.
fn shell_quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classifier_is_scored_class_by_class() {
        let task = Task::Classification(vec!["a".into(), "b".into(), "c".into()]);
        let score = Score::new(&task, &[0.0, 0.0, 1.0, 1.0], &[0.0, 1.0, 1.0, 1.0]);
        let Score::Classification { accuracy, classes } = score else { panic!("not a classifier's score") };
        assert_eq!(accuracy, 0.75);
        assert_eq!((classes[0].precision, classes[0].recall), (Some(1.0), Some(0.5)));
        assert_eq!((classes[1].precision, classes[1].recall), (Some(2.0 / 3.0), Some(1.0)));
        assert_eq!((classes[2].precision, classes[2].recall, classes[2].rows), (None, None, 0));
    }

    #[test]
    fn a_regressor_that_says_the_mean_scores_zero() {
        let score = Score::new(&Task::Regression, &[1.0, 3.0], &[2.0, 2.0]);
        assert_eq!(score, Score::Regression { r2: Some(0.0), mean_absolute_error: 1.0 });
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(shell_quoted("target/release/epochd"), "target/release/epochd");
        assert_eq!(shell_quoted("my data"), "'my data'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }
}
