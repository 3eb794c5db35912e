//! What a backend says of itself before anything runs.

use fp8flow_sdk::{ErrorKind, LayerFacts, OptionKind, Options, Precision, RecipeInfo};

use super::{Found, ensure};
use crate::failure::Failure;
use crate::subject::{K, NS, Subject, here};
use crate::tested::Tested;

/// The list of recipes can be printed, parsed and built from.
pub(crate) fn recipes_are_described(backend: &dyn Tested, recipes: &[RecipeInfo]) -> Found {
    ensure!(!recipes.is_empty(), "the backend has no recipe");
    for (i, recipe) in recipes.iter().enumerate() {
        ensure!(is_word(&recipe.name), "recipe `{}`: a name is made of a-z, 0-9, _ and -", recipe.name);
        ensure!(!recipe.about.is_empty(), "recipe `{}` says nothing of itself", recipe.name);
        ensure!(
            recipes[..i].iter().all(|r| r.name != recipe.name),
            "two recipes are called `{}`",
            recipe.name
        );
        for (j, option) in recipe.options.iter().enumerate() {
            let name = format!("{}.{}", recipe.name, option.name);
            ensure!(is_word(&option.name), "option `{name}`: a name is made of a-z, 0-9, _ and -");
            ensure!(!option.about.is_empty(), "option `{name}` says nothing of itself");
            ensure!(
                recipe.options[..j].iter().all(|o| o.name != option.name),
                "two options are called `{name}`"
            );
            let default = &option.default;
            let fits = match &option.kind {
                OptionKind::Bool => default.is_boolean(),
                OptionKind::Integer { min, max } => {
                    default.as_i64().is_some_and(|x| (*min..=*max).contains(&x))
                }
                OptionKind::Number { min, max } => {
                    default.as_f64().is_some_and(|x| (*min..=*max).contains(&x))
                }
                OptionKind::Choice { values } => values.iter().any(|word| default == word),
            };
            ensure!(fits, "option `{name}`: the default {default} is not what its type allows");
        }
    }
    let host = here();
    let call = |error| Failure::Call { call: "Backend::start", error };
    let unknown = backend.start(&host).map_err(call)?.recipe(&host, "no such recipe", &Options::default());
    let kind = unknown.map(|_| ()).map_err(|error| error.kind);
    ensure!(kind == Err(ErrorKind::Invalid), "an unknown recipe should be ErrorKind::Invalid, not {kind:?}");
    Ok(format!("{} recipes", recipes.len()))
}

fn is_word(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(allowed)
}

fn facts(out_features: usize, in_features: usize) -> LayerFacts {
    LayerFacts {
        device: None,
        name: "model.layers.0.mlp.up_proj".into(),
        in_features,
        out_features,
        tokens: Some(64),
        block: Some(0),
        group: Vec::new(),
    }
}

/// Decisions carry a reason, agree with themselves, and a layer decided as FP8 can be made.
pub(crate) fn decisions_are_sound(subject: &Subject<'_>) -> Found {
    let recipe = subject.recipe(&here())?;
    let mut fp8 = 0;
    for (n, k) in [(NS[0], K), (NS[1], K), (16, 16), (48, 80), (7, 64), (64, 7), (1, 1)] {
        let decision = recipe.decide(&facts(n, k));
        ensure!(decision == recipe.decide(&facts(n, k)), "{n}×{k}: asked twice, decided differently");
        ensure!(!decision.reason.is_empty(), "{n}×{k}: no reason is given");
        ensure!(decision.fp8_gemms.iter().all(|&gemms| gemms <= 1), "{n}×{k}: {:?}", decision.fp8_gemms);
        let any = decision.fp8_gemms.contains(&1);
        match decision.precision {
            Precision::High => {
                ensure!(!any, "{n}×{k}: high precision with FP8 GEMMs {:?}", decision.fp8_gemms);
            }
            Precision::Fp8 => {
                ensure!(any, "{n}×{k}: FP8 without an FP8 GEMM");
                // A recipe of its own: a run has one layer of a name.
                let made = subject.recipe(&here())?.linear(&facts(n, k)).map(|_| ());
                made.map_err(|error| Failure::Wrong(format!("{n}×{k}: decided as FP8, but: {error}")))?;
                fp8 += 1;
            }
        }
        ensure!(any || (n, k) != (NS[0], K), "{n}×{k}: should run in FP8, but: {}", decision.reason);
    }
    Ok(format!("{fp8} of 7 shapes in FP8"))
}

/// Recipes, and options of a recipe, that compute different bits have different descriptions.
pub(crate) fn descriptions_tell_apart(subjects: &[Subject<'_>]) -> Found {
    let mut seen: Vec<(String, &[u8], &str)> = Vec::new();
    for subject in subjects {
        let description = subject.recipe(&here())?.describe().to_string();
        let bits = subject.remembered_steps()?;
        let twin = seen.iter().find(|(other, others, _)| *other == description && *others != bits);
        if let Some((_, _, twin)) = twin {
            return Err(Failure::Wrong(format!(
                "`{}` computes other bits than `{twin}`, but both are described as {description}: whatever can change \
                 a bit belongs into Recipe::describe",
                subject.label
            )));
        }
        seen.push((description, bits, &subject.label));
    }
    Ok(format!("{} settings", subjects.len()))
}

/// The description is an object, the same every time: it is part of a run's identity.
pub(crate) fn description_is_stable(subject: &Subject<'_>) -> Found {
    let first = subject.recipe(&here())?.describe();
    let mut used = subject.group()?;
    let dtype = crate::values::Activations::Bf16;
    used.step(&crate::subject::input(dtype, 16, 0), &crate::subject::output_gradients(dtype, 16, 0))?;
    ensure!(first.as_object().is_some_and(|fields| !fields.is_empty()), "not an object with fields: {first}");
    let (first, later) = (first.to_string(), used.recipe().describe().to_string());
    ensure!(first == later, "changed by a step: {first} became {later}");
    Ok(format!("{} bytes", first.len()))
}
