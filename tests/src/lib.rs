//! Black-box tests of the whole: parity, reproducibility, crash, command line.
