//! The real stages on one thread of the processor.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use fp8flow_flow::Registry;
use fp8flow_host::{Pool, Services};
use fp8flow_kernels::Isa;
use fp8flow_stages::Engine;

/// Every section and stage.
pub(crate) static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let (isa, pool) = (Isa::best(), Arc::new(Pool::new(1).expect("one thread")));
    let host = Services::new(isa, Arc::clone(&pool) as _, Arc::new(AtomicBool::new(false))).host();
    fp8flow_stages::registry(&Engine::new(isa, pool, host, Vec::new()))
});
