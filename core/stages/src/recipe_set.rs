//! Several recipes in one run, as one: each layer goes to its own, events go to all.
//!
//! State and description keep the members apart by a label, `0.rowwise/…`. Layers of different members never share a
//! group (the layer plan sees to that), so the members know nothing of each other.

use std::collections::BTreeMap;

use fp8flow_sdk::{Decision, Error, Event, LayerFacts, Linear, Recipe, Result, StateDict};
use serde_json::{Value, json};

/// Several recipes as one.
pub(crate) struct RecipeSet {
    /// Each with its label.
    members: Vec<(String, Box<dyn Recipe>)>,
    /// The number of the member for each layer.
    of: BTreeMap<String, usize>,
}

impl RecipeSet {
    /// `recipes` with their names; the layer `name` runs under number `of[name]`. One recipe stays as it is, its state
    /// and description too.
    pub(crate) fn assemble(
        mut recipes: Vec<(String, Box<dyn Recipe>)>,
        of: BTreeMap<String, usize>,
    ) -> Option<Box<dyn Recipe>> {
        if recipes.len() <= 1 {
            return recipes.pop().map(|(_, recipe)| recipe);
        }
        let label = |(i, (name, recipe)): (usize, (String, _))| (format!("{i}.{name}"), recipe);
        Some(Box::new(Self { members: recipes.into_iter().enumerate().map(label).collect(), of }))
    }

    fn number(&self, layer: &LayerFacts) -> Result<usize> {
        self.of
            .get(&layer.name)
            .copied()
            .filter(|&number| number < self.members.len())
            .ok_or_else(|| Error::protocol(format!("layer `{}` was planned under no recipe", layer.name)))
    }
}

impl Recipe for RecipeSet {
    fn describe(&self) -> Value {
        let members: serde_json::Map<String, Value> =
            self.members.iter().map(|(label, recipe)| (label.clone(), recipe.describe())).collect();
        json!({ "recipes": members, "layers": self.of })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        match self.number(layer) {
            Ok(number) => self.members[number].1.decide(layer),
            Err(error) => {
                Decision { precision: fp8flow_sdk::Precision::High, reason: error.message, fp8_gemms: [0; 3] }
            }
        }
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let number = self.number(layer)?;
        self.members[number].1.linear(layer)
    }

    fn on(&mut self, event: Event) -> Result<()> {
        self.members.iter_mut().try_for_each(|(_, recipe)| recipe.on(event))
    }

    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::default();
        for (label, recipe) in &self.members {
            state.0.extend(
                recipe.state()?.0.into_iter().map(|(key, tensor)| (format!("{label}/{key}"), tensor)),
            );
        }
        Ok(state)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let mut parts = vec![StateDict::default(); self.members.len()];
        for (key, tensor) in &state.0 {
            let owner = self.members.iter().enumerate().find_map(|(i, (label, _))| {
                key.strip_prefix(label.as_str())?.strip_prefix('/').map(|own| (i, own))
            });
            let Some((i, own)) = owner else {
                let labels: Vec<&str> = self.members.iter().map(|(label, _)| label.as_str()).collect();
                return Err(Error::invalid(format!(
                    "state `{key}` is of no recipe of this run, which has {}",
                    labels.join(", ")
                )));
            };
            parts[i].0.insert(own.to_owned(), tensor.clone());
        }
        self.members.iter_mut().zip(&parts).try_for_each(|((_, recipe), part)| recipe.restore(part))
    }

    fn healthy(&self) -> Result<()> {
        self.members.iter().try_for_each(|(_, recipe)| recipe.healthy())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use fp8flow_sdk::{DType, Precision, StateTensor};

    use super::*;

    /// Notes its calls; its state is one byte under each key.
    struct Noting {
        name: &'static str,
        calls: Arc<Mutex<Vec<String>>>,
        state: Vec<(&'static str, u8)>,
        sick: bool,
    }

    impl Noting {
        fn note(&self, call: &str) {
            self.calls.lock().expect("no panic holds it").push(format!("{}: {call}", self.name));
        }
    }

    fn byte(value: u8) -> StateTensor {
        StateTensor { dtype: DType::E4M3, shape: vec![1], bytes: vec![value] }
    }

    impl Recipe for Noting {
        fn describe(&self) -> Value {
            json!({ "name": self.name })
        }
        fn decide(&self, layer: &LayerFacts) -> Decision {
            let reason = format!("{} decides {}", self.name, layer.name);
            Decision { precision: Precision::Fp8, reason, fp8_gemms: [1; 3] }
        }
        fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
            self.note(&format!("linear {}", layer.name));
            Err(Error::unsupported(self.name))
        }
        fn on(&mut self, event: Event) -> Result<()> {
            self.note(&format!("{event:?}"));
            Ok(())
        }
        fn state(&self) -> Result<StateDict> {
            Ok(StateDict(self.state.iter().map(|(key, value)| ((*key).to_owned(), byte(*value))).collect()))
        }
        fn restore(&mut self, state: &StateDict) -> Result<()> {
            let keys: Vec<_> =
                state.0.iter().map(|(key, tensor)| format!("{key}={}", tensor.bytes[0])).collect();
            self.note(&format!("restore [{}]", keys.join(" ")));
            Ok(())
        }
        fn healthy(&self) -> Result<()> {
            if self.sick { Err(Error::protocol(format!("{} is sick", self.name))) } else { Ok(()) }
        }
    }

    type Calls = Arc<Mutex<Vec<String>>>;

    fn noting(
        name: &'static str,
        calls: &Calls,
        state: &[(&'static str, u8)],
        sick: bool,
    ) -> (String, Box<dyn Recipe>) {
        (name.into(), Box::new(Noting { name, calls: calls.clone(), state: state.to_vec(), sick }))
    }

    fn layer(name: &str) -> LayerFacts {
        LayerFacts {
            device: None,
            name: name.into(),
            in_features: 16,
            out_features: 16,
            tokens: None,
            block: None,
            group: Vec::new(),
        }
    }

    /// Three recipes, two of one name; layers `a` and `c` under the first, `b` under the last.
    fn set(calls: &Calls, sick: bool) -> Box<dyn Recipe> {
        let recipes = vec![
            noting("delayed", calls, &[("amax", 1), ("scale", 2)], false),
            noting("rowwise", calls, &[], sick),
            noting("delayed", calls, &[("amax", 3)], false),
        ];
        let of = [("a", 0), ("c", 0), ("b", 2)].map(|(name, number)| (name.to_owned(), number));
        RecipeSet::assemble(recipes, of.into()).expect("some")
    }

    #[test]
    fn layers_go_to_their_own_recipe_and_events_to_all() {
        let calls = Calls::default();
        let mut set = set(&calls, false);
        assert_eq!(set.decide(&layer("b")).reason, "delayed decides b");
        assert!(set.linear(&layer("c")).is_err());
        set.on(Event::BackwardDone).expect("well");
        assert_eq!(
            *calls.lock().expect("no panic holds it"),
            ["delayed: linear c", "delayed: BackwardDone", "rowwise: BackwardDone", "delayed: BackwardDone"]
        );
        let unknown = set.linear(&layer("d")).err().expect("it is in no plan");
        assert!(unknown.message.contains("`d` was planned under no recipe"), "{unknown}");
        assert_eq!(set.decide(&layer("d")).precision, Precision::High);
        set.healthy().expect("well");
    }

    #[test]
    fn states_are_kept_apart_and_come_back_to_their_owners() {
        let calls = Calls::default();
        let mut set = set(&calls, false);
        let state = set.state().expect("well");
        let keys: Vec<_> = state.0.keys().map(String::as_str).collect();
        assert_eq!(keys, ["0.delayed/amax", "0.delayed/scale", "2.delayed/amax"]);
        set.restore(&state).expect("it fits");
        assert_eq!(
            *calls.lock().expect("no panic holds it"),
            ["delayed: restore [amax=1 scale=2]", "rowwise: restore []", "delayed: restore [amax=3]"]
        );
        let foreign = StateDict([("3.delayed/amax".to_owned(), byte(0))].into());
        let error = set.restore(&foreign).expect_err("no such member");
        assert!(error.message.contains("`3.delayed/amax`") && error.message.contains("2.delayed"), "{error}");
    }

    #[test]
    fn the_description_names_every_recipe_and_whose_the_layers_are() {
        let description = set(&Calls::default(), false).describe();
        assert_eq!(description["recipes"]["1.rowwise"], json!({ "name": "rowwise" }));
        assert_eq!(description["layers"], json!({ "a": 0, "b": 2, "c": 0 }));
    }

    #[test]
    fn one_sick_recipe_is_a_sick_set() {
        let error = set(&Calls::default(), true).healthy().expect_err("one is sick");
        assert_eq!(error.message, "rowwise is sick");
    }

    #[test]
    fn a_single_recipe_keeps_its_plain_keys() {
        let calls = Calls::default();
        let one =
            RecipeSet::assemble(vec![noting("delayed", &calls, &[("amax", 1)], false)], BTreeMap::new());
        let one = one.expect("it is there");
        assert_eq!(one.describe(), json!({ "name": "delayed" }));
        assert_eq!(one.state().expect("well").0.keys().collect::<Vec<_>>(), ["amax"]);
        assert!(RecipeSet::assemble(Vec::new(), BTreeMap::new()).is_none());
    }
}
