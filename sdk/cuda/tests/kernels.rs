//! The kernels compile for every architecture within their budgets. No card is needed, NVRTC is.

#[test]
fn every_kernel_keeps_its_budget() {
    fp8flow_cuda::check::check_all(&fp8flow_cuda::cast::SOURCES);
    fp8flow_cuda::check::check_all(&fp8flow_cuda::gemm::SOURCES);
}
