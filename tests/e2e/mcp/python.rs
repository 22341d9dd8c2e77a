use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use llama_stack_tests::venv;

/// The packages that these tests need.
const PACKAGES: &str = "mcp==2.3.0";

/// A Python with the SDK, or why there is none. Made once, whichever test asks first.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-mcp");
        Ok(venv::programs(&folder, &[PACKAGES])?.join("python"))
    });
    PYTHON.clone()
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/mcp").join(name)
}
