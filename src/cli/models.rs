//! `epochd models`: the models of a server.

use super::Outcome;
use super::output::{print, print_json, table};
use super::remote::{Page, ServerArgs, every_page};
use crate::rpc::pb;

/// List the models of a server, by name.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd models --server http://127.0.0.1:50051

Exit codes: 0 listed, 1 failed (or something could not be read), 2 wrong usage.")]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON a model, as ListModels answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let all = args.server.talk(async |mut client| {
        every_page(async |token| {
            let page = client.list_models(token).await?;
            Ok(Page { items: page.models, unreachable: page.unreachable, next_token: page.next_page_token })
        })
        .await
    })?;
    let models = &all.items;
    if args.json {
        models.iter().try_for_each(print_json)?;
    } else if models.is_empty() {
        print("no models yet; make one with: epochd train FILE.csv --target COLUMN")?;
    } else {
        let header = ["model", "network", "parameters", "latest", "trains"];
        print(&table(&header, &[2, 3], models.iter().map(row)))?;
    }
    Ok(all.outcome())
}

fn row(model: &pb::Model) -> Vec<String> {
    let shape = model.architecture.as_ref().map(shape).unwrap_or_default();
    let counts = [model.parameter_count.to_string(), model.latest_version.to_string()];
    let [parameters, latest] = counts;
    vec![model.model_id.clone(), shape, parameters, latest, model.active_job_id.clone()]
}

/// A network in one word: `4-64-3`.
fn shape(architecture: &pb::Architecture) -> String {
    let units = architecture.layers.iter().map(|layer| layer.units);
    let widths: Vec<String> = [architecture.input_width].into_iter().chain(units).map(|it| it.to_string()).collect();
    widths.join("-")
}
