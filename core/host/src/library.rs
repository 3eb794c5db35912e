//! Opened libraries: one of each digest in a process, never closed again.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_sdk::RecipeInfo;
use fp8flow_sdk::abi::{Library, LoadError};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::arithmetic::Arithmetic;
use crate::{Digest, Found, HostError, crash};

/// An opened library.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) library: Library,
    pub(crate) recipes: Arc<[RecipeInfo]>,
}

static OPENED: Mutex<Vec<(Digest, Opened)>> = Mutex::new(Vec::new());

/// Whether this process has opened the library with this digest.
pub(crate) fn is_open(digest: &Digest) -> bool {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(opened, _)| opened == digest)
}

/// The library, opened now or before.
pub(crate) fn open(found: &Found) -> Result<Opened, HostError> {
    let mut libraries = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, opened)) = libraries.iter().find(|(digest, _)| *digest == found.digest) {
        return Ok(opened.clone());
    }
    found.unchanged()?;
    crash::listen();
    let arithmetic = Arithmetic::here();
    let library = crash::during(&found.subject(), "", "open", || load(found))?;
    found.unchanged()?;
    if Arithmetic::here() != arithmetic {
        arithmetic.restore();
        let (plugin, path) = (found.name().to_owned(), found.path.clone());
        return Err(HostError::Arithmetic { plugin, path });
    }
    let recipes = crash::during(&found.subject(), "", "recipes", || library.recipes())?;
    check_recipes(found, &recipes).map_err(|message| HostError::Recipes {
        plugin: found.name().to_owned(),
        path: found.path.clone(),
        message,
    })?;
    let opened = Opened { library, recipes: recipes.into() };
    libraries.push((found.digest, opened.clone()));
    Ok(opened)
}

fn load(found: &Found) -> Result<Library, HostError> {
    let (plugin, path) = (found.name(), &found.path);
    let open_error = |error: libloading::Error| HostError::Open {
        plugin: plugin.to_owned(),
        path: path.clone(),
        message: reason(&error),
    };
    // NOW: what is missing is missed here, not in the middle of a run. LOCAL: plugins do not see each other's symbols.
    // NODELETE: a library whose code may still be on some stack is never unmapped.
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: opening runs the library's constructors: code that the user has put into a configured place. It was
    // checked to be a whole ELF library with a manifest of this SDK, and its path is absolute.
    let handle = unsafe { Handle::open(Some(path), flags) }.map_err(open_error)?;
    let symbol = found.manifest.symbol();
    // SAFETY: only the address is taken; `Library::from_symbol` looks at what is there.
    let address = *unsafe { handle.get::<*const ()>(symbol.as_bytes()) }.map_err(open_error)?;
    std::mem::forget(handle);
    // SAFETY: the library stays open.
    unsafe { Library::from_symbol(address, &found.manifest) }.map_err(|source| {
        if let LoadError::Layout { dump, .. } = &source {
            tracing::trace!(plugin, "{dump}");
        }
        HostError::Load { plugin: plugin.to_owned(), path: path.clone(), source }
    })
}

/// The dynamic linker's words, without the path that stands before them.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// What the functions say against what the manifest says, and the recipes against themselves.
fn check_recipes(found: &Found, recipes: &[RecipeInfo]) -> Result<(), String> {
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(", ")
    };
    let says = sorted(found.manifest.recipes.iter().map(String::as_str).collect());
    let has = sorted(recipes.iter().map(|recipe| recipe.name.as_str()).collect());
    if says != has {
        return Err(format!("its manifest lists the recipes {says}; it has {has}"));
    }
    for recipe in recipes {
        for option in &recipe.options {
            if option.kind.admit(&option.default).is_none() {
                let (recipe, option, kind, default) =
                    (&recipe.name, &option.name, &option.kind, &option.default);
                return Err(format!(
                    "option `{option}` of recipe `{recipe}` is {kind}, and {default} by default"
                ));
            }
        }
    }
    Ok(())
}
