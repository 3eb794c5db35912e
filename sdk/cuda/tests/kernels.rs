//! The kernels compile for every architecture within their budgets. No card is needed, NVRTC is.

use fp8flow_cuda::check::{check, obstacle};
use fp8flow_cuda::gemm;

#[test]
fn every_kernel_keeps_its_budget() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: {obstacle}");
        return;
    }
    let mut faults = Vec::new();
    for source in gemm::SOURCES {
        let checked = check(source);
        checked.seen.iter().for_each(|line| println!("{line}"));
        if checked.unseen > 0 {
            println!("{}: {} instructions not looked for, without nvdisasm", source.name, checked.unseen);
        }
        faults.extend(checked.faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
