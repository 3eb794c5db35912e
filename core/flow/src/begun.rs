//! What a stage is made from as far as that is known before it runs: the key of its result, and a note in its folder
//! while it works, so that a later attempt goes on only from what was made of the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::plan::counting;
use crate::plan::{Plan, PlannedStage};
use crate::{Error, Registry, atomic, digest, extent};

/// The name of the note in a stage's folder.
pub(crate) const FILE: &str = ".begun.json";

/// What a stage is made from, all but what only its run can tell: files outside the run, sections it looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Its kind.
    pub(crate) uses: String,
    /// [`crate::StageKind::revision`].
    pub(crate) revision: u32,
    /// What any result depends on beside the workflow: device, numerics revision.
    pub(crate) machine: Map<String, Value>,
    /// Edge, and [`crate::manifest::Manifest::result`] of that stage.
    pub(crate) inputs: BTreeMap<String, String>,
    /// Its values, defaults written out, without edges and without those that change no result.
    pub(crate) params: Map<String, Value>,
    /// Which of them only says where it ends: [`crate::Extent::Open`].
    pub(crate) extent: Option<String>,
}

impl Begun {
    /// What `stage` is made from; `inputs` by edge, `binding` as in [`crate::RunOptions`].
    pub(crate) fn new(
        plan: &Plan,
        registry: &Registry,
        binding: &Value,
        stage: &PlannedStage,
        inputs: BTreeMap<String, String>,
    ) -> Self {
        let entry = registry.find(&stage.uses);
        let fields = entry.map_or(&[][..], |entry| &entry.fields);
        let mut params = counting(fields, stage.params.json());
        params.retain(|key, _| !fields.iter().any(|field| field.name == key && field.kind.is_edge()));
        let machine = plan.machine(binding);
        let revision = entry.map_or(0, |entry| entry.kind.revision());
        let extent = entry.and_then(|entry| extent::open(&*entry.kind, &stage.params));
        let extent = extent.map(|(key, _)| key.to_owned());
        Self { uses: stage.uses.clone(), revision, machine, inputs, params, extent }
    }

    /// How many steps it goes, where that is all that their number says.
    pub(crate) fn steps(&self) -> Option<u64> {
        self.params.get(self.extent.as_ref()?)?.as_u64()
    }

    /// Whether `other` is the same but for how far it goes.
    pub(crate) fn is_on_the_way_of(&self, other: &Self) -> bool {
        let endless = |begun: &Self| {
            let mut begun = begun.clone();
            begun.extent.as_ref().and_then(|key| begun.params.shift_remove(key));
            begun
        };
        self.extent.is_some() && endless(self) == endless(other)
    }

    /// The digest of all of it.
    pub(crate) fn key(&self) -> String {
        digest::of_json(&json!(self))
    }

    /// The note in `folder`; `None` if there is none or it cannot be understood.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        atomic::write_json(&folder.join(FILE), self)
    }

    /// In words, how `now` differs from this, if it does.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        if (&self.uses, self.revision) != (&now.uses, now.revision) {
            return Some(format!("{} works in another way than {} did", now.uses, self.uses));
        }
        if let Some((edge, _)) =
            now.inputs.iter().find(|(edge, result)| self.inputs.get(*edge) != Some(result))
        {
            return Some(format!("`{edge}` has changed since"));
        }
        let both = [(&self.params, &now.params), (&self.machine, &now.machine)];
        both.into_iter().find_map(|(before, now)| {
            let (key, value) = now.iter().find(|(key, value)| before.get(*key) != Some(value))?;
            let before = before.get(key).map_or("nothing".into(), ToString::to_string);
            Some(format!("`{key}` was {before} and is {value}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Edit = fn(&mut Begun);

    fn begun() -> Begun {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        Begun {
            uses: "train.sft".into(),
            revision: 1,
            machine: object(json!({ "device": "cpu", "numerics": 1 })),
            inputs: [("tokens".to_owned(), "aa".to_owned())].into(),
            params: object(json!({ "steps": 4, "optimizer": { "lr": 1e-3 } })),
            extent: None,
        }
    }

    #[test]
    fn every_part_is_in_the_key_and_each_difference_is_said() {
        let before = begun();
        assert_eq!((before.key(), before.difference(&begun())), (begun().key(), None));
        let changes: [(Edit, &str); 5] = [
            (|b| b.revision = 2, "train.sft works in another way than train.sft did"),
            (|b| b.uses = "train.pt".into(), "train.pt works in another way than train.sft did"),
            (|b| drop(b.inputs.insert("tokens".into(), "bb".into())), "`tokens` has changed since"),
            (|b| drop(b.params.insert("steps".into(), 5.into())), "`steps` was 4 and is 5"),
            (|b| drop(b.machine.insert("numerics".into(), 2.into())), "`numerics` was 1 and is 2"),
        ];
        for (change, words) in changes {
            let mut now = begun();
            change(&mut now);
            assert_ne!(now.key(), before.key(), "{words}");
            assert_eq!(before.difference(&now).as_deref(), Some(words));
        }
    }

    #[test]
    fn only_the_number_of_open_steps_may_differ_on_the_way() {
        let with = |extent: Option<&str>, steps: u64, seed: u64| {
            let mut begun = Begun { extent: extent.map(String::from), ..begun() };
            begun.params.insert("steps".into(), steps.into());
            begun.params.insert("block".into(), seed.into());
            begun
        };
        let open = with(Some("steps"), 4, 1);
        assert_eq!(open.steps(), Some(4));
        assert!(open.is_on_the_way_of(&with(Some("steps"), 9, 1)));
        assert!(!open.is_on_the_way_of(&with(Some("steps"), 9, 2)));
        assert!(!open.is_on_the_way_of(&with(None, 9, 1)));
        let bound = with(None, 4, 1);
        assert_eq!(bound.steps(), None);
        assert!(!bound.is_on_the_way_of(&with(None, 9, 1)));
    }
}
