//! What the project is built from: licences that its users can live with, and a reason for each crate.

use std::process::Command;

/// Licences that ask for no more than a notice.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether a licence expression can be met with allowed licences alone: every part of an AND, one part of an OR.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let Some(parts) = split(expression.trim(), " AND ").or_else(|| split(expression.trim(), " OR ")) else {
        let single = expression.trim().trim_start_matches('(').trim_end_matches(')').trim();
        return ALLOWED.contains(&single);
    };
    let is_and = split(expression.trim(), " AND ").is_some();
    if is_and { parts.iter().all(|part| is_allowed(part)) } else { parts.iter().any(|part| is_allowed(part)) }
}

/// The parts between an operator that stands outside parentheses; `None` where it does not occur.
fn split(expression: &str, operator: &str) -> Option<Vec<String>> {
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let expression = match inner {
        Some(inner) if balanced(inner) => inner,
        _ => expression,
    };
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(operator) => {
                parts.push(expression[start..at].to_owned());
                start = at + operator.len();
            }
            _ => {}
        }
    }
    parts.push(expression[start..].to_owned());
    (parts.len() > 1).then_some(parts)
}

/// Whether every parenthesis closes one that was opened before it.
fn balanced(text: &str) -> bool {
    let mut depth = 0;
    text.chars().all(|character| {
        depth += i32::from(character == '(') - i32::from(character == ')');
        depth >= 0
    })
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    for allowed in
        ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "(MIT OR Apache-2.0)"]
    {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND MPL-2.0", "MIT WITH something", ""] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

/// Every crate that is built, with its licence.
#[test]
fn every_dependency_has_an_allowed_licence() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not on the list: {refused:#?}");
}

/// Every dependency in both manifests says on its line why it is there.
#[test]
fn every_dependency_has_its_reason() {
    let read = |name: &str| std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let manifest = read("Cargo.toml") + &read("engine/Cargo.toml");
    let mut is_dependency = false;
    let mut count = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = line.contains("dependencies]");
        } else if is_dependency && line.contains(" = ") && !line.starts_with('#') {
            assert!(line.contains(" # "), "no reason: {line}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
