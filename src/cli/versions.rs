//! `epochd versions`: the versions of a model that are kept.

use super::Outcome;
use super::output::{print, print_json, table};
use super::remote::{Page, ServerArgs, every_page};
use crate::rpc::pb;

/// List the versions of a model that are kept, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd versions iris

Exit codes: 0 listed, 1 failed (or something could not be read), 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON a version, as ListVersions answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let Args { model: model_id, server, json } = args;
    let (model, all) = server.talk(async |mut client| {
        let model = client.model(&model_id).await?;
        let all = every_page(async |page_token| {
            let request = pb::ListVersionsRequest { model_id: model_id.clone(), page_token, page_size: 0 };
            let page = client.list_versions(request).await?;
            let unreachable = page.unreachable.iter().map(|version| format!("version {version}")).collect();
            Ok(Page { items: page.versions, unreachable, next_token: page.next_page_token })
        })
        .await?;
        Ok((model, all))
    })?;
    if json {
        all.items.iter().try_for_each(print_json)?;
    } else {
        let header = ["version", "from", "source", "epoch", "loss", "kept as"];
        print(&table(&header, &[0, 1, 3, 4], all.items.iter().map(|version| row(&model, version))))?;
    }
    Ok(all.outcome())
}

fn row(model: &pb::Model, version: &pb::Version) -> Vec<String> {
    let number = version.version;
    let report = version.report.as_ref();
    vec![
        number.to_string(),
        if version.base_version > 0 { version.base_version.to_string() } else { String::new() },
        version.source().as_str_name().trim_start_matches("VERSION_SOURCE_").to_lowercase(),
        report.map_or_else(String::new, |report| report.epoch.to_string()),
        report.map_or_else(String::new, |report| format!("{:.4}", report.loss)),
        kept_as(model, number),
    ]
}

/// What it is beside its age.
fn kept_as(model: &pb::Model, version: i32) -> String {
    let is_served = model.serving_version == Some(version);
    let words = [
        (model.latest_version == version, "latest"),
        (is_served, "served"),
        (model.pinned_versions.contains(&version), "pinned"),
    ];
    words.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}
