//! Element by element: the kernels have the bits of the CPU.
