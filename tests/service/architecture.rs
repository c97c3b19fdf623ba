//! Which module may use which: the arrows that ARCHITECTURE.md draws.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below a module of `src`, with its text.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let alone = source.join(format!("{module}.rs"));
    files.extend(alone.exists().then_some(alone));
    assert!(!files.is_empty(), "no module {module}");
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The modules of ours that a text names as `crate::module`, comments left out.
fn used(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut modules = Vec::new();
    for line in code {
        for after in line.split("crate::").skip(1) {
            let name: String = after.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            assert!(!name.is_empty(), "name the modules one by one: {line}");
            modules.push(name);
        }
    }
    modules
}

#[track_caller]
fn uses_only(module: &str, allowed: &[&str]) {
    for (path, text) in sources(module) {
        for name in used(&text).iter().filter(|name| *name != module) {
            assert!(allowed.contains(&name.as_str()), "{} uses {name}", path.display());
        }
    }
}

#[test]
fn modules_use_only_those_below_them() {
    uses_only("limits", &[]);
    uses_only("domain", &["limits"]);
    uses_only("engine", &["domain", "limits"]);
    uses_only("store", &["domain", "limits"]);
    uses_only("jobs", &["domain", "limits"]);
    uses_only("config", &["limits"]);
    uses_only("app", &["domain", "engine", "store", "jobs", "limits"]);
    uses_only("ops", &["app", "limits"]);
    uses_only("rpc", &["app", "domain", "limits", "ops"]);
}

#[test]
fn only_rpc_and_ops_know_the_grpc_libraries() {
    for module in ["limits", "domain", "engine", "store", "jobs", "config", "app", "server", "cli", "main", "lib"] {
        for (path, text) in sources(module) {
            for library in ["tonic", "prost", "tower::"] {
                let names = |line: &str| !line.trim_start().starts_with("//") && line.contains(library);
                let found = text.lines().find(|line| names(line));
                // A log filter may name a library as text.
                assert!(found.is_none(), "{} knows {library}: {found:?}", path.display());
            }
        }
    }
}

#[test]
fn the_engine_is_pure() {
    for module in ["domain", "engine"] {
        for (path, text) in sources(module) {
            for forbidden in ["tokio", "std::fs", "std::net", "std::io", "std::env", "Instant", "SystemTime", "tracing"]
            {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let found = code.into_iter().find(|line| line.contains(forbidden));
                assert!(found.is_none(), "{} names {forbidden}: {found:?}", path.display());
            }
        }
    }
}

/// The map in ARCHITECTURE.md names every module, and no other.
#[test]
fn the_map_matches_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let shown = if entry.path().is_dir() { format!("src/{name}/") } else { format!("src/{name}") };
        assert!(map.contains(&shown), "ARCHITECTURE.md does not name {shown}");
    }
    let paths = map.split(|it: char| it.is_whitespace() || "`()|,;".contains(it)).filter(|it| it.starts_with("src/"));
    for path in paths {
        let path = path.trim_end_matches(['.', ':']);
        assert!(root.join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
    }
}
