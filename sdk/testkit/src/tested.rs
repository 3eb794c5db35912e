//! A backend under test: one whose type is known here, or one that was loaded from a file.

use std::marker::PhantomData;

use fp8flow_sdk::abi::{Library, LoadedBackend};
use fp8flow_sdk::{Backend, Host, Kernels, Options, Recipe, RecipeInfo, Result};

use crate::elsewhere::Elsewhere;

/// What the suite asks of a backend before it is started.
pub trait Tested: Sync {
    /// [`Backend::recipes`].
    fn recipes(&self) -> Result<Vec<RecipeInfo>>;

    /// [`Backend::start`].
    fn start(&self, host: &Host) -> Result<Box<dyn Started>>;

    /// The card that its layers work on, if their memory is not this process's.
    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        None
    }
}

/// A backend that was started.
pub trait Started {
    /// [`Backend::recipe`].
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>>;

    /// [`Backend::kernels`].
    fn kernels(&self, host: &Host) -> Result<Option<Box<dyn Kernels>>>;
}

/// A backend that is linked into the test.
#[derive(Debug)]
pub struct Linked<B>(PhantomData<fn() -> B>);

impl<B> Default for Linked<B> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<B: Backend> Tested for Linked<B> {
    fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        Ok(B::recipes())
    }

    fn start(&self, host: &Host) -> Result<Box<dyn Started>> {
        Ok(Box::new(Running(B::start(host)?)))
    }
}

struct Running<B>(B);

impl<B: Backend> Started for Running<B> {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        self.0.recipe(host, name, options)
    }

    fn kernels(&self, host: &Host) -> Result<Option<Box<dyn Kernels>>> {
        Ok(self.0.kernels(host))
    }
}

impl Tested for Library {
    fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        self.recipes()
    }

    fn start(&self, host: &Host) -> Result<Box<dyn Started>> {
        Ok(Box::new(self.start(host)?))
    }
}

impl Started for LoadedBackend {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        self.recipe(host, name, options)
    }

    fn kernels(&self, host: &Host) -> Result<Option<Box<dyn Kernels>>> {
        self.kernels(host)
    }
}
