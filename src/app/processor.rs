//! What a job is trained on: the bits of its weights are promised for one build on one kind of processor.

/// The build, and what decides which instructions it uses, such as `epochd 0.1.0 on x86_64 avx512f fma`.
pub(super) fn build_and_processor() -> String {
    let build = concat!("epochd ", env!("CARGO_PKG_VERSION"));
    [&[build, "on", std::env::consts::ARCH], &*extensions()].concat().join(" ")
}

#[cfg(target_arch = "x86_64")]
fn extensions() -> Vec<&'static str> {
    let known = [
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
    ];
    known.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect()
}

/// Elsewhere the products have one form.
#[cfg(not(target_arch = "x86_64"))]
fn extensions() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_build_and_the_architecture() {
        let told = build_and_processor();
        assert!(told.starts_with("epochd ") && told.contains(std::env::consts::ARCH), "{told}");
    }
}
