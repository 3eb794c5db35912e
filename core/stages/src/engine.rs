//! What all stages share: the device, the threads and where plugins are looked for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_flow::Plan;
use fp8flow_host::Pool;
use fp8flow_kernels::{Cpu, Isa};
use fp8flow_sdk::Host;
use fp8flow_tensor::{CardError, CpuDevice, CudaDevice, Device};

use crate::device::Place;

/// What the binary lends the stages of every run.
#[derive(Clone)]
pub struct Engine {
    devices: Arc<Devices>,
    /// What plugins are lent.
    pub host: Host,
    /// Folders and files given on the command line to look for plugins in.
    pub plugin_paths: Vec<PathBuf>,
}

struct Devices {
    cpu: Arc<CpuDevice>,
    /// The card of the plan at hand, and its number; none for the CPU. A card stays open for the next plan.
    card: Mutex<Option<(usize, Arc<dyn Device>)>>,
    place: Mutex<Place>,
}

impl Engine {
    /// An engine on the CPU, with the kernels of `isa` on the threads of `pool`; it opens a card where a workflow asks for one.
    pub fn new(isa: Isa, pool: Arc<Pool>, host: Host, plugin_paths: Vec<PathBuf>) -> Self {
        let cpu = Arc::new(CpuDevice::new(isa, pool));
        let devices = Devices { cpu, card: Mutex::default(), place: Mutex::new(Place::Cpu) };
        Self { devices: Arc::new(devices), host, plugin_paths }
    }

    /// Runs the operations of models, where the plan at hand says.
    pub fn device(&self) -> Arc<dyn Device> {
        let place = *self.devices.place.lock().unwrap_or_else(PoisonError::into_inner);
        let card = self.devices.card.lock().unwrap_or_else(PoisonError::into_inner);
        match (place, &*card) {
            (Place::Card(_), Some((_, card))) => card.clone(),
            _ => self.devices.cpu.clone(),
        }
    }

    /// The CPU, wherever models run: for data, files and digests.
    pub fn cpu(&self) -> Cpu<'_> {
        self.devices.cpu.cpu()
    }

    /// The CPU as a device, wherever models run: the specification of every card.
    pub(crate) fn cpu_device(&self) -> &CpuDevice {
        &self.devices.cpu
    }

    /// Runs on the device of `plan` from now on.
    pub fn take_place(&self, plan: &Plan) -> Result<(), CardError> {
        self.move_to(Place::of(plan))
    }

    /// Runs on the device that is called so, as a workflow calls it, from now on; false if none is.
    pub fn take_device(&self, name: &str) -> Result<bool, CardError> {
        let Some(place) = Place::parse(name) else { return Ok(false) };
        self.move_to(place)?;
        Ok(true)
    }

    pub(crate) fn move_to(&self, place: Place) -> Result<(), CardError> {
        if let Place::Card(number) = place {
            let mut card = self.devices.card.lock().unwrap_or_else(PoisonError::into_inner);
            if card.as_ref().is_none_or(|(open, _)| *open != number) {
                *card = None;
                let opened = CudaDevice::open(number, self.devices.cpu.clone())?;
                *card = Some((number, Arc::new(opened)));
            }
        }
        *self.devices.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
        Ok(())
    }
}
