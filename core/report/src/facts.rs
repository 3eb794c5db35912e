//! All that a report tells of a run, read from its folder.

use std::collections::BTreeMap;

use fp8flow_flow::{Seen, SeenResult, SeenStage, Stages, time};
use fp8flow_stages::LayerPlan;
use fp8flow_train::proof::LayerCount;
use fp8flow_train::{DIGESTS, LayerTelemetry, StepDigest, metrics, read_telemetry};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ReportError;
use crate::curve::Curve;
use crate::notes::Notes;

/// Enough of the end of a chain of digests to hold its last line.
const LAST_LINE: u64 = 1 << 18;

/// A run.
pub(crate) struct Facts {
    pub(crate) run: Seen,
    pub(crate) sections: Map<String, Value>,
    pub(crate) stages: Vec<Stage>,
    /// Seconds that processes worked on it.
    pub(crate) worked: f64,
    pub(crate) workflow: Option<String>,
    pub(crate) notes: Notes,
    /// When all this was read.
    pub(crate) now: String,
}

/// A stage.
pub(crate) struct Stage {
    pub(crate) seen: SeenStage,
    pub(crate) params: Map<String, Value>,
    pub(crate) result: Option<SeenResult>,
    pub(crate) training: Option<Training>,
}

/// What a training stage has beside.
pub(crate) struct Training {
    pub(crate) curve: Curve,
    pub(crate) layers: LayerPlan,
    /// What every layer owed and counted, once it is done.
    pub(crate) counts: BTreeMap<String, LayerCount>,
    /// How it came about, once it is done.
    pub(crate) account: Value,
    /// What it takes of memory, as planned.
    pub(crate) memory: Value,
    /// The last line of the chain of digests.
    pub(crate) chain: Option<StepDigest>,
    pub(crate) casts: Casts,
}

/// What the casts of watched steps lost.
#[derive(Default)]
pub(crate) struct Casts {
    /// Of each tensor of a layer.
    pub(crate) tensors: BTreeMap<(String, &'static str), Worst>,
    /// Of each watched step: elements, and of these those clipped and those that became zero.
    pub(crate) steps: BTreeMap<u64, [f64; 3]>,
}

/// The worst of one tensor over the watched steps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Worst {
    /// The largest share that was clipped, and the step.
    pub(crate) saturated: (f64, u64),
    /// The largest share that became zero, and the step.
    pub(crate) underflowed: (f64, u64),
    /// The largest magnitude.
    pub(crate) amax: f64,
    /// The oldest scale, in micro-batches.
    pub(crate) scale_age: u64,
}

/// What is read of a planned stage.
#[derive(Deserialize)]
struct PlannedStage {
    name: String,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    facts: Value,
}

impl Facts {
    /// Reads the run.
    pub(crate) fn read(run: &Seen) -> Result<Self, ReportError> {
        let mut plan = run.plan()?;
        let Stages { all, worked } = run.stages()?;
        let planned = plan.remove("stages").unwrap_or_default();
        let planned: Vec<PlannedStage> = serde_json::from_value(planned).unwrap_or_default();
        let mut stages = Vec::new();
        for seen in all {
            let own = planned.iter().find(|stage| stage.name == seen.name);
            let result = run.result(&seen.name)?;
            let training = match own.filter(|_| fp8flow_stages::is_training(&seen.uses)) {
                Some(own) => Some(Training::read(run, own, &planned, result.as_ref())?),
                None => None,
            };
            let params = own.map(|own| own.params.clone()).unwrap_or_default();
            stages.push(Stage { seen, params, result, training });
        }
        let sections = match plan.remove("sections") {
            Some(Value::Object(sections)) => sections,
            _ => Map::new(),
        };
        let (workflow, notes) = (run.workflow(), Notes::read(run)?);
        // Good wherever the page is read.
        let folder = std::path::absolute(&run.folder).unwrap_or_else(|_| run.folder.clone());
        Ok(Self {
            run: Seen { folder, ..run.clone() },
            sections,
            stages,
            worked,
            workflow,
            notes,
            now: time::now(),
        })
    }

    /// The training stages.
    pub(crate) fn trainings(&self) -> impl Iterator<Item = (&Stage, &Training)> {
        self.stages.iter().filter_map(|stage| Some((stage, stage.training.as_ref()?)))
    }

    /// What is called so in the section `backend`.
    pub(crate) fn backend(&self) -> &Value {
        self.sections.get("backend").and_then(|section| section.get("facts")).unwrap_or(&Value::Null)
    }
}

impl Training {
    fn read(
        run: &Seen,
        own: &PlannedStage,
        planned: &[PlannedStage],
        result: Option<&SeenResult>,
    ) -> Result<Self, ReportError> {
        let folder = run.folder.join(&own.name);
        let layers =
            own.inputs.get("layers").and_then(|name| planned.iter().find(|stage| stage.name == *name));
        let layers = layers.and_then(|stage| LayerPlan::deserialize(&stage.facts["layers"]).ok());
        let account = result.map(|result| result.account.clone()).unwrap_or_default();
        let counts = Vec::<LayerCount>::deserialize(&account["fp8"]["by_layer"]).unwrap_or_default();
        let mut curve = Curve::in_folder(&folder)?;
        curve.label = "training".into();
        curve.stage.clone_from(&own.name);
        curve.run.clone_from(&run.record.id);
        let chain = metrics::tail::<StepDigest>(&folder.join(DIGESTS), LAST_LINE)?.pop();
        let mut casts = Casts::default();
        read_telemetry(&folder)?.for_each(|line| casts.add(&line));
        Ok(Self {
            curve,
            layers: layers.unwrap_or_default(),
            counts: counts.into_iter().map(|count| (count.layer.clone(), count)).collect(),
            account,
            memory: own.facts["memory"].clone(),
            chain,
            casts,
        })
    }
}

impl Casts {
    pub(crate) fn add(&mut self, line: &LayerTelemetry) {
        for (tensor, casts) in line.tensors() {
            let elements = casts.elements as f64;
            let step = self.steps.entry(line.step).or_default();
            let lost = [elements, elements * casts.saturated, elements * casts.underflowed];
            step.iter_mut().zip(lost).for_each(|(sum, more)| *sum += more);
            let worst = self.tensors.entry((line.layer.clone(), tensor)).or_default();
            worst.saturated = larger(worst.saturated, (casts.saturated, line.step));
            worst.underflowed = larger(worst.underflowed, (casts.underflowed, line.step));
            worst.amax = worst.amax.max(casts.amax);
            worst.scale_age = worst.scale_age.max(casts.scale_age);
        }
    }
}

fn larger(a: (f64, u64), b: (f64, u64)) -> (f64, u64) {
    if b.0 > a.0 { b } else { a }
}
