//! What was seen of plugins that survived being opened: one small file for each digest, in the user's cache.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fp8flow_sdk::RecipeInfo;
use fp8flow_sdk::manifest::SDK_VERSION;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// More bytes than the recipes of any honest plugin take.
const LIMIT: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
struct Seen {
    /// The SDK of the fp8flow that saw it: another one sees for itself.
    sdk: String,
    recipes: Vec<RecipeInfo>,
}

/// `$XDG_CACHE_HOME/fp8flow/plugins`; none for a user without a home.
pub(crate) fn folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let folders = etcetera::base_strategy::Xdg::new().ok()?;
    Some(folders.cache_dir().join("fp8flow").join("plugins"))
}

/// The recipes of the plugin with this digest, if it was seen.
pub(crate) fn recall(folder: &Path, digest: &Digest) -> Option<Vec<RecipeInfo>> {
    let path = file(folder, digest);
    if std::fs::metadata(&path).ok()?.len() > LIMIT {
        return None;
    }
    // What cannot be read is as good as never seen.
    let seen: Seen = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (seen.sdk == SDK_VERSION).then_some(seen.recipes)
}

/// Remembers a plugin. A cache that cannot be written costs time, and is no error.
pub(crate) fn remember(folder: &Path, digest: &Digest, recipes: &[RecipeInfo]) {
    let seen = Seen { sdk: SDK_VERSION.to_owned(), recipes: recipes.to_vec() };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut aside = tempfile::NamedTempFile::new_in(folder)?;
        aside.write_all(&serde_json::to_vec(&seen)?)?;
        aside.persist(file(folder, digest))?;
        Ok(())
    };
    if let Err(error) = write() {
        tracing::debug!(folder = %folder.display(), %error, "what was seen of a plugin is not remembered");
    }
}

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{digest}.json"))
}
