//! What is under test: a recipe with settled options, made anew for every check.

use std::sync::{Arc, OnceLock};

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Error, Host, OptionKind, Options, Recipe, RecipeInfo};
use serde_json::Value;

use crate::driver::Layers;
use crate::elsewhere::Elsewhere;
use crate::failure::Failure;
use crate::host::host;
use crate::tested::Tested;
use crate::values::{Activations, Values, normal};
use crate::watched::{Watch, Watched};

/// K of the test layers: a multiple of every block size in use.
pub(crate) const K: usize = 128;
/// N of the layers that share an input.
pub(crate) const NS: [usize; 2] = [128, 256];

/// A recipe of a backend, with options.
pub(crate) struct Subject<'a> {
    /// For the report.
    pub(crate) label: String,
    /// Whether the options are the recipe's defaults.
    pub(crate) defaults: bool,
    /// The card that the layers work on, if they do.
    pub(crate) elsewhere: Option<&'a dyn Elsewhere>,
    make: Box<Make<'a>>,
    first: OnceLock<Vec<u8>>,
}

/// Starts the backend, and makes the recipe once for each host, the first of which it is started with.
type Make<'a> = dyn Fn(&[Host]) -> Result<Vec<Box<dyn Recipe>>, Error> + Sync + 'a;

impl Subject<'_> {
    /// The recipe on another host.
    pub(crate) fn recipe(&self, host: &Host) -> Result<Box<dyn Recipe>, Failure> {
        let mut made = self.recipes(std::slice::from_ref(host))?;
        made.pop().ok_or_else(|| Failure::Wrong("no recipe was made".into()))
    }

    /// A recipe for each of these hosts, all of one backend that is started with the first.
    pub(crate) fn recipes(&self, hosts: &[Host]) -> Result<Vec<Box<dyn Recipe>>, Failure> {
        (self.make)(hosts).map_err(|error| Failure::Call { call: "Backend::recipe", error })
    }

    /// Whether the layers work on a card.
    pub(crate) fn on_card(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// The layers of a group, with their weights, under a fresh recipe.
    pub(crate) fn group(&self) -> Result<Layers, Failure> {
        self.group_on(&here())
    }

    /// The same on another host.
    pub(crate) fn group_on(&self, host: &Host) -> Result<Layers, Failure> {
        group_of(self.recipe(host)?)
    }

    /// The group under a fresh recipe whose calls are looked at.
    pub(crate) fn watched(&self, host: &Host, watch: &Arc<Watch>) -> Result<Layers, Failure> {
        let recipe = watch.during("Backend::recipe", || self.recipe(host))?;
        group_of(Box::new(Watched(recipe, watch.clone())))
    }

    /// The bits of the first steps of a fresh recipe.
    pub(crate) fn first_steps(&self) -> Result<Vec<u8>, Failure> {
        let (x, dys) = (input(Activations::F32, 16, 0), output_gradients(Activations::F32, 16, 0));
        let mut layers = self.group()?;
        let mut bits = Vec::new();
        for _ in 0..3 {
            bits.extend(layers.step(&x, &dys)?.bits());
        }
        Ok(bits)
    }

    /// [`Subject::first_steps`] as they were when they were asked for first.
    pub(crate) fn remembered_steps(&self) -> Result<&[u8], Failure> {
        if let Some(bits) = self.first.get() {
            return Ok(bits);
        }
        let bits = self.first_steps()?;
        Ok(self.first.get_or_init(|| bits))
    }

    /// Layer `i` of the group by itself.
    pub(crate) fn alone(&self, i: usize) -> Result<Layers, Failure> {
        Layers::new(self.recipe(&here())?, K, vec![weight(i)])
    }
}

/// The layers of a group, with their weights, under `recipe`.
pub(crate) fn group_of(recipe: Box<dyn Recipe>) -> Result<Layers, Failure> {
    Layers::new(recipe, K, (0..NS.len()).map(weight).collect())
}

/// The host most checks run on.
pub(crate) fn here() -> Host {
    host(Isa::best(), 2)
}

/// The weight of layer `i`.
pub(crate) fn weight(i: usize) -> Vec<f32> {
    normal(NS[i] * K, 0.02, 100 + i as u64)
}

/// An input of `tokens` rows; another for another `seed`.
pub(crate) fn input(dtype: Activations, tokens: usize, seed: u64) -> Values {
    Values::normal(dtype, tokens, K, 1.0, 200 + seed)
}

/// The gradients of the outputs of all layers.
pub(crate) fn output_gradients(dtype: Activations, tokens: usize, seed: u64) -> Vec<Values> {
    NS.iter().zip(0..).map(|(&n, i)| Values::normal(dtype, tokens, n, 1e-3, 300 + 10 * seed + i)).collect()
}

/// Every recipe of a backend with its defaults, and with each option at each of its ends in turn.
pub(crate) fn subjects<'a>(backend: &'a dyn Tested, recipes: &[RecipeInfo]) -> Vec<Subject<'a>> {
    let mut subjects = Vec::new();
    for recipe in recipes {
        let defaults: serde_json::Map<_, _> =
            recipe.options.iter().map(|option| (option.name.clone(), option.default.clone())).collect();
        let mut variants = vec![(recipe.name.clone(), Options(defaults.clone()))];
        for option in &recipe.options {
            for value in ends(&option.kind).into_iter().filter(|value| *value != option.default) {
                let mut options = defaults.clone();
                options.insert(option.name.clone(), value.clone());
                variants.push((format!("{} with {} = {value}", recipe.name, option.name), Options(options)));
            }
        }
        subjects.extend(variants.into_iter().map(|(label, options)| {
            let name = recipe.name.clone();
            Subject {
                defaults: label == recipe.name,
                label,
                elsewhere: backend.elsewhere(),
                first: OnceLock::new(),
                make: Box::new(move |hosts: &[Host]| {
                    let started = backend.start(&hosts[0])?;
                    hosts.iter().map(|host| started.recipe(host, &name, &options)).collect()
                }),
            }
        }));
    }
    subjects
}

fn ends(kind: &OptionKind) -> Vec<Value> {
    match kind {
        OptionKind::Bool => vec![false.into(), true.into()],
        OptionKind::Integer { min, max } => vec![(*min).into(), (*max).into()],
        OptionKind::Number { min, max } => vec![(*min).into(), (*max).into()],
        OptionKind::Choice { values } => values.iter().map(|word| word.as_str().into()).collect(),
    }
}
