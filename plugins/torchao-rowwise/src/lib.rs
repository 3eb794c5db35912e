//! torchao's float8 training recipes: rowwise, tensorwise, rowwise_with_gw_hp.
